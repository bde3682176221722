"""The display of `citadel top`."""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from citadel_client.cli.server_status import ServerStatus
from citadel_contracts.api import QueueStats, WorkerInfo
from citadel_contracts.runs import RunSummary

LANES = ("interactive", "standard", "batch")
QUEUE_COLUMNS = ("queue", *LANES, "scheduled", "unacked", "workers", "running", "tasks/s")
STYLES = {"ok": "green", "degraded": "yellow", "down": "red"}
MOST_WORKERS = 12
ID_SHOWN = 48
MESSAGE_SHOWN = 100


def frame(status: ServerStatus, url: str) -> Group:
    """Return the whole display."""
    parts: list[RenderableType] = [_headline(status, url)]
    parts += [Text(problem, style="yellow") for problem in status.problems]
    if status.queues:
        parts.append(_table("queues", QUEUE_COLUMNS, _queues(status)))
    if status.workers:
        columns = ("worker", "queue", "running", "processed", "failed")
        parts.append(_table("workers", columns, _workers(status.workers)))
    if status.unfinished:
        columns = ("run", "workflow", "kind", "status", "submitted")
        parts.append(_table("newest unfinished runs", columns, _runs(status.unfinished)))
    if errors := _errors(status):
        parts.append(_table("recent errors", ("at", "what", "error"), errors))
    return Group(*parts)


def _headline(status: ServerStatus, url: str) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(status.at))
    line = Text(f"citadel {url}  {clock}  ")
    if not status.reachable:
        return line.append("not reachable; trying again", style="red")
    if status.health is not None:
        line.append(status.health.status, style=STYLES[status.health.status])
        down = [name for name, part in status.health.components.items() if part.status == "down"]
        line.append(f" (down: {', '.join(down)})" if down else "")
    if status.dead_letters is not None:
        line.append(f"  dead letters: {status.dead_letters.total}", style="red" if status.dead_letters.total else "")
    return line


def _queues(status: ServerStatus) -> Iterable[tuple[Any, ...]]:
    for queue in status.queues:
        lanes = [queue.lanes.get(lane, 0) for lane in LANES]
        rate = status.rates.get(queue.name)
        yield queue.name, *lanes, queue.scheduled, queue.unacked, queue.workers, _busy(queue, status), _rate(rate)


def _busy(queue: QueueStats, status: ServerStatus) -> str:
    mine = [worker for worker in status.workers if worker.queue == queue.name]
    return f"{sum(worker.running for worker in mine)}/{sum(worker.concurrency for worker in mine)}" if mine else ""


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1f}"


def _workers(workers: Iterable[WorkerInfo]) -> Iterable[tuple[Any, ...]]:
    found = sorted(workers, key=lambda worker: (worker.queue, worker.id))
    for worker in found[:MOST_WORKERS]:
        busy = f"{worker.running}/{worker.concurrency}"
        yield worker.id[:ID_SHOWN], worker.queue, busy, worker.processed, worker.failed
    if (more := len(found) - MOST_WORKERS) > 0:
        yield f"and {more} more", "", "", "", ""


def _runs(runs: Iterable[RunSummary]) -> Iterable[tuple[Any, ...]]:
    for run in runs:
        yield run.run_id, run.workflow_id, run.kind, run.status, _clock(run.created_at)


def _errors(status: ServerStatus) -> list[tuple[str, str, str]]:
    """Return time, source and message of the last errors, newest first."""
    dead_letters = status.dead_letters.letters if status.dead_letters else []
    found = [
        (datetime.fromisoformat(entry.at), f"dead letter {entry.id}", f"{entry.code}: {entry.error}")
        for entry in dead_letters
    ]
    for run in status.failed:
        message = run.error.message if run.error else ""
        found.append((run.finished_at or run.created_at, f"run {run.run_id}", message))
    return [(_clock(at), what, error[:MESSAGE_SHOWN]) for at, what, error in sorted(found, reverse=True)]


def _clock(at: datetime) -> str:
    return at.astimezone().strftime("%H:%M:%S")


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table
