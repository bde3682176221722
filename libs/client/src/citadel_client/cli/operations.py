"""`citadel health`, `models`, `queues` and `workers`: the state of the server."""

from typing import Annotated, Any

import typer

from citadel_client import NEVER
from citadel_client.cli.options import ExitCode, Json, Timeout, Url, connect
from citadel_client.terminal import print_json, print_list, print_table
from citadel_contracts.api import ModelInfo, QueueStats, WorkerInfo
from citadel_contracts.maintenance import MisroutedMessages

History = Annotated[bool, typer.Option("--history", help="Show results of the periodic checks, newest first.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of results of the history.")]


def health(
    history: History = False, limit: Limit = 20, url: Url = None, timeout: Timeout = 30.0, json_: Json = False
) -> None:
    """Show the server's health; exits with 4 if a required component is down (degraded is 0).

    --history lists the results of the periodic health checks instead.
    """
    if history:
        _show_history(limit, url, timeout, json_)
    else:
        _show_health(url, timeout, json_)


def _show_history(limit: int, url: str | None, timeout: float, json_: bool) -> None:
    with connect(url, timeout) as citadel:
        found = citadel.history("health", limit=limit)
    print_list(found, json_, ("at", "status", "not up"), _history_row)


def _history_row(entry: dict[str, Any]) -> tuple[str, str, str]:
    status = entry.get("health_status") or {}
    impaired = [
        f"{name} {said.get('status')}"
        for name, said in (status.get("services") or {}).items()
        if said.get("status") in {"down", "slow"}
    ]
    return str(entry.get("at", ""))[:19], str(status.get("status", "")), ", ".join(impaired)


def _show_health(url: str | None, timeout: float, json_: bool) -> None:
    with connect(url, timeout, NEVER) as citadel:
        found = citadel.health()
    if json_:
        print_json(found)
    else:
        rows = [
            (name, part.status, "required" if part.required else "optional", _ms(part.latency_ms), part.detail or "")
            for name, part in found.components.items()
        ]
        title = f"{found.status} (version {found.version})"
        print_table(("component", "status", "", "latency", "detail"), rows, title)
    if found.status == "down":
        raise typer.Exit(ExitCode.UNHEALTHY)


def _ms(latency: float | None) -> str:
    return "" if latency is None else f"{latency:.1f} ms"


def models(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """List the embedding models that live backends have."""
    with connect(url, timeout) as citadel:
        found = citadel.models()
    print_list(found, json_, ("model", "dimensions", "tokens", "backend"), _model_row)


def _model_row(model: ModelInfo) -> tuple[object, ...]:
    return model.name, model.dimensions or "", model.max_tokens or "", model.backend


def queues(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """List the queues with their ready messages by lane, those that wait for their time, unacked ones, and workers.

    Messages that Celery clients have sent into lists that no worker reads follow, with the setting to change.
    """
    with connect(url, timeout) as citadel:
        found = citadel.queues()
    print_list(found, json_, ("queue", "ready", "lanes", "scheduled", "unacked", "workers"), _queue_row)
    misrouted = [_misrouted_row(queue.name, one) for queue in found for one in queue.misrouted]
    if misrouted and not json_:
        print_table(
            ("for queue", "list", "messages", "moved", "what to do"), misrouted, "messages that no worker reads"
        )


def _queue_row(queue: QueueStats) -> tuple[object, ...]:
    lanes = ", ".join(f"{lane} {count}" for lane, count in queue.lanes.items())
    return queue.name, queue.ready, lanes, queue.scheduled, queue.unacked, queue.workers


def _misrouted_row(queue: str, one: MisroutedMessages) -> tuple[object, ...]:
    return queue, f"{one.key} (database {one.database})", one.messages, one.moved, one.help


def workers(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """List the live workers."""
    with connect(url, timeout) as citadel:
        found = citadel.workers()
    print_list(found, json_, ("worker", "queue", "pid", "running", "processed", "failed"), _worker_row)


def _worker_row(worker: WorkerInfo) -> tuple[object, ...]:
    busy = f"{worker.running}/{worker.concurrency}"
    return worker.id, worker.queue, worker.pid, busy, worker.processed, worker.failed
