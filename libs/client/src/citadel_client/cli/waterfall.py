"""Waterfall of a run: a bar per attempt of a step, to one scale, from the times of the run's events."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from citadel_contracts.runs import RunEvent, RunView

WIDTH = 30
"""Characters of the longest bar."""
MOST_ROWS = 200
"""Maximum number of bars; a batch has thousands of chunks."""
_OUTCOMES = {
    "step_succeeded": "succeeded",
    "step_failed": "failed",
    "step_skipped": "skipped",
    "step_cancelled": "cancelled",
    "step_retrying": "retried",
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One attempt of a step; times in milliseconds since the run was accepted."""

    step_id: str
    item: int | None
    attempt: int
    outcome: str
    start_ms: float
    duration_ms: float

    @property
    def name(self) -> str:
        """Step, item, and the number of the attempt unless it is the first."""
        item = "" if self.item is None else f"[{self.item}]"
        return f"{self.step_id}{item}" + (f" #{self.attempt}" if self.attempt > 1 else "")


def bars(view: RunView, events: Iterable[RunEvent]) -> list[Bar]:
    """Return the attempts in the order of their starts; one without an end lasts to the run's end or its last event."""
    began: dict[tuple[str, int | None], tuple[int, datetime]] = {}
    found: list[Bar] = []
    last = view.created_at

    def end(key: tuple[str, int | None], outcome: str, at: datetime) -> None:
        attempt, start = began.pop(key)
        start_ms, duration_ms = _ms(view, start), max(0.0, _ms(view, at) - _ms(view, start))
        times = {"start_ms": round(start_ms, 3), "duration_ms": round(duration_ms, 3)}
        found.append(Bar(step_id=key[0], item=key[1], attempt=attempt, outcome=outcome, **times))

    for event in events:
        last = max(last, event.at)
        if event.step_id is None:
            continue
        key = event.step_id, event.item
        if event.type == "step_started":
            if key in began:
                end(key, "lost", event.at)
            began[key] = int(event.data.get("attempt", 1)), event.at
        elif event.type in _OUTCOMES and key in began:
            end(key, _OUTCOMES[event.type], event.at)
    for key in list(began):
        end(key, "unfinished" if view.finished_at is None else "cancelled", view.finished_at or last)
    return sorted(found, key=lambda bar: (bar.start_ms, bar.name))


def rows(view: RunView, found: list[Bar]) -> list[tuple[str, str, str, str, str]]:
    """Return name, outcome, start, duration and bar of the run and of each attempt."""
    whole = max([_ms(view, view.finished_at), *(bar.start_ms + bar.duration_ms for bar in found), 0.001])
    head = (f"{view.kind} {view.workflow_id}", view.status, "0", _duration(whole), "█" * WIDTH)
    shown = [
        (f"  {bar.name}", bar.outcome, _duration(bar.start_ms), _duration(bar.duration_ms), _drawn(bar, whole))
        for bar in found[:MOST_ROWS]
    ]
    left = len(found) - len(shown)
    return [head, *shown, *([(f"  … {left} more", "", "", "", "")] if left else [])]


def _ms(view: RunView, at: datetime | None) -> float:
    return 0.0 if at is None else max(0.0, (at - view.created_at).total_seconds() * 1000)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"


def _drawn(bar: Bar, whole: float) -> str:
    first = min(WIDTH - 1, int(bar.start_ms / whole * WIDTH))
    last = min(WIDTH, max(first + 1, round((bar.start_ms + bar.duration_ms) / whole * WIDTH)))
    return " " * first + "█" * (last - first)
