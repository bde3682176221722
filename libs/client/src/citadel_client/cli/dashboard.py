"""A snapshot of the server as something to look at."""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from citadel_client.cli.snapshots import Snapshot
from citadel_contracts.api import QueueStats, WorkerInfo
from citadel_contracts.runs import RunSummary

LANES = ("interactive", "standard", "batch")
COLOURS = {"ok": "green", "degraded": "yellow", "down": "red"}
MOST_WORKERS = 12
ID_SHOWN = 48
MESSAGE_SHOWN = 100


def frame(snapshot: Snapshot, url: str) -> Group:
    """All of it, from the top of the screen down."""
    parts: list[RenderableType] = [_headline(snapshot, url)]
    parts += [Text(problem, style="yellow") for problem in snapshot.problems]
    if snapshot.queues:
        parts.append(_table("queues", ("queue", *LANES, "unacked", "workers", "running", "tasks/s"), _queues(snapshot)))
    if snapshot.workers:
        columns = ("worker", "queue", "running", "processed", "failed")
        parts.append(_table("workers", columns, _workers(snapshot.workers)))
    if snapshot.unfinished:
        rows = [
            (run.run_id, run.workflow_id, run.kind, run.status, _clock(run.created_at)) for run in snapshot.unfinished
        ]
        parts.append(_table("newest unfinished runs", ("run", "workflow", "kind", "status", "submitted"), rows))
    if errors := _errors(snapshot):
        parts.append(_table("recent errors", ("at", "what", "error"), errors))
    return Group(*parts)


def _headline(snapshot: Snapshot, url: str) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
    line = Text(f"citadel {url}  {clock}  ")
    if not snapshot.reachable:
        return line.append("not reachable; trying again", style="red")
    if snapshot.health is not None:
        line.append(snapshot.health.status, style=COLOURS[snapshot.health.status])
        down = [name for name, part in snapshot.health.components.items() if part.status == "down"]
        line.append(f" (down: {', '.join(down)})" if down else "")
    if snapshot.letters is not None:
        line.append(f"  dead letters: {snapshot.letters.total}", style="red" if snapshot.letters.total else "")
    return line


def _queues(snapshot: Snapshot) -> Iterable[tuple[Any, ...]]:
    for queue in snapshot.queues:
        lanes = [queue.lanes.get(lane, 0) for lane in LANES]
        rate = snapshot.rates.get(queue.name)
        yield queue.name, *lanes, queue.unacked, queue.workers, _busy(queue, snapshot), _rate(rate)


def _busy(queue: QueueStats, snapshot: Snapshot) -> str:
    mine = [worker for worker in snapshot.workers if worker.queue == queue.name]
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


def _errors(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Newest first."""
    letters = snapshot.letters.letters if snapshot.letters else []
    found = [
        (datetime.fromisoformat(letter.at), f"dead letter {letter.id}", f"{letter.code}: {letter.error}")
        for letter in letters
    ]
    for run in snapshot.failed:
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
