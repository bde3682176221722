"""`citadel health`, `models`, `queues` and `workers`: the state of the server."""

from typing import Annotated, Any

import typer

from citadel_client import NEVER
from citadel_client.cli.options import ExitCode, Json, Timeout, Url, connect
from citadel_client.terminal import print_json, print_table

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
    if json_:
        print_json(found)
        return
    print_table(("at", "status", "not up"), [_history_row(entry) for entry in found])


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
    if json_:
        print_json(found)
        return
    rows = [(model.name, model.dimensions or "", model.max_tokens or "", model.backend) for model in found]
    print_table(("model", "dimensions", "tokens", "backend"), rows)


def queues(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """List the queues with their ready messages by lane, unacked messages and workers."""
    with connect(url, timeout) as citadel:
        found = citadel.queues()
    if json_:
        print_json(found)
        return
    rows = [
        (
            queue.name,
            queue.ready,
            ", ".join(f"{lane} {n}" for lane, n in queue.lanes.items()),
            queue.unacked,
            queue.workers,
        )
        for queue in found
    ]
    print_table(("queue", "ready", "lanes", "unacked", "workers"), rows)


def workers(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """List the live workers."""
    with connect(url, timeout) as citadel:
        found = citadel.workers()
    if json_:
        print_json(found)
        return
    rows = [
        (worker.id, worker.queue, worker.pid, f"{worker.running}/{worker.concurrency}", worker.processed, worker.failed)
        for worker in found
    ]
    print_table(("worker", "queue", "pid", "running", "processed", "failed"), rows)
