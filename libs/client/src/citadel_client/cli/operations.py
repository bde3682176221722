"""`citadel health`, `models`, `queues` and `workers`: how the server is."""

import typer

from citadel_client.cli.console import print_json, print_table
from citadel_client.cli.exits import ExitCode
from citadel_client.cli.options import Json, Timeout, Url, connect
from citadel_client.retries import NEVER


def health(url: Url = None, timeout: Timeout = 30.0, json_: Json = False) -> None:
    """Show the server's health; exits with 4 when something required is down (degraded is 0)."""
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
    """List the queues: what waits, by lane, and what is being worked on."""
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
