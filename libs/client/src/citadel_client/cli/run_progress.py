"""Progress of a run, computed from its events."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from citadel_contracts.runs import RunEvent, RunView

ENDED = frozenset({"succeeded", "failed", "skipped", "cancelled"})


@dataclass(kw_only=True)
class StepProgress:
    """Progress of one step.

    Attributes:
        total: Number of items of a `for_each`, once known; of a batch, the number of requests, several per item.
        done: Items that succeeded or were skipped.
        failed: Items that failed.
    """

    type: str = ""
    status: str = "pending"
    attempt: int = 0
    total: int | None = None
    done: int = 0
    failed: int = 0
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds from its start to its end, or until now."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds())


@dataclass(kw_only=True)
class RunProgress:
    """Progress of a run and its steps, in the definition's order."""

    run_id: str
    status: str = "queued"
    steps: dict[str, StepProgress] = field(default_factory=dict)

    @classmethod
    def of(cls, view: RunView) -> "RunProgress":
        """Return the progress of a run before its first event."""
        steps = {
            step.step_id: StepProgress(type=step.type, total=step.items.total if step.items else None)
            for step in view.steps
        }
        return cls(run_id=view.run_id, steps=steps)

    def apply(self, event: RunEvent) -> None:
        """Apply the next event; an unknown type changes nothing."""
        kind, _, what = event.type.partition("_")
        if kind == "run":
            self._run(what)
        elif kind == "step" and event.step_id is not None:
            self.status = "running" if self.status == "queued" else self.status
            step = self.steps.setdefault(event.step_id, StepProgress())
            if event.item is None or event.item < 0:
                _step(step, what, event)
            elif what in ENDED:
                failed = event.data.get("failed", int(what == "failed"))
                step.failed += failed
                step.done += event.data.get("requests", 1) - failed

    def _run(self, what: str) -> None:
        self.status = {"submitted": "queued", "resumed": "running", "retried": "running"}.get(what, what)
        for step in self.steps.values() if what == "retried" else ():
            if step.status != "succeeded":
                step.status, step.error, step.failed, step.finished_at = "pending", "", 0, None


def _step(step: StepProgress, what: str, event: RunEvent) -> None:
    step.status = {"started": "running", "admitted": "running", "expanded": "running"}.get(what, what)
    if what == "started":
        step.attempt = event.data.get("attempt", step.attempt + 1)
        step.started_at = step.started_at if step.attempt > 1 and step.started_at else event.at
    if what == "expanded":
        step.total = event.data.get("items")
    if what in ENDED:
        step.finished_at = event.at
    step.error = str((event.data.get("error") or {}).get("message", ""))
