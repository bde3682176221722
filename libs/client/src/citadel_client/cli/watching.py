"""Follow a run: a live table on a terminal, a line per change elsewhere; then print its output."""

import contextlib
from collections.abc import Callable, Iterator

import orjson
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from citadel_client import Run
from citadel_client.cli.options import ExitCode
from citadel_client.cli.run_progress import RunProgress, StepProgress
from citadel_client.terminal import err, print_json, say
from citadel_contracts.runs import RunEvent, RunView

STYLES = {
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "retrying": "yellow",
}
TENTHS = 10
MOST_ROWS = 40


class _Table:
    """A table that is redrawn several times a second."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress

    def __rich__(self) -> Table:
        table = Table(title=f"run {self._progress.run_id}: {self._progress.status}", title_justify="left")
        for column in ("step", "type", "status", "items", "seconds", ""):
            table.add_column(column, overflow="fold")
        for step_id, step in list(self._progress.steps.items())[:MOST_ROWS]:
            table.add_row(Text(step_id), step.type, styled(step.status), _items(step), _seconds(step), _note(step))
        if (more := len(self._progress.steps) - MOST_ROWS) > 0:
            table.add_row(f"and {more} more", "", "", "", "", "")
        return table


class _Lines:
    """A line per change of a step, and per tenth of a step's items."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._tenths: dict[str, int] = {}

    def show(self, event: RunEvent) -> None:
        """Print a line if the event deserves one."""
        what = event.type.replace("_", " ").removeprefix("step ")
        if event.step_id is None:
            say(f"{event.type.replace('_', ' ')}")
        elif event.item is None or event.item < 0:
            step = self._progress.steps[event.step_id]
            say(f"{event.step_id}: {what}{': ' + step.error if step.error else ''}")
        else:
            self._show_items(event.step_id, self._progress.steps[event.step_id])

    def _show_items(self, step_id: str, step: StepProgress) -> None:
        ended = step.done + step.failed
        if step.total and ended * TENTHS // step.total > self._tenths.get(step_id, 0):
            self._tenths[step_id] = ended * TENTHS // step.total
            say(f"{step_id}: {_items(step)} items")


def styled(status: str) -> Text:
    """Return a status in its style."""
    return Text(status, style=STYLES.get(status, "dim"))


def _items(step: StepProgress) -> str:
    if step.total is None:
        return ""
    return f"{step.done + step.failed}/{step.total}" + (f", {step.failed} failed" if step.failed else "")


def _seconds(step: StepProgress) -> str:
    return "" if step.seconds is None else f"{step.seconds:.1f}"


def _note(step: StepProgress) -> Text:
    return Text(step.error or (f"attempt {step.attempt}" if step.attempt > 1 else ""))


@contextlib.contextmanager
def _display(progress: RunProgress) -> Iterator[Callable[[RunEvent], None]]:
    """Display the progress; yield a function to call after each event."""
    if not err.is_terminal:
        yield _Lines(progress).show
        return
    with Live(_Table(progress), console=err, refresh_per_second=8):
        yield lambda _: None  # the next redraw shows the event


def follow(run: Run, timeout: float | None = None) -> RunView:
    """Show a run's progress until it ends; return the run.

    Raises:
        typer.Exit: Interrupted; the run goes on.
    """
    try:
        progress = RunProgress.of(run.show(outputs=False))
        with _display(progress) as show:
            for event in run.events(timeout=timeout):
                progress.apply(event)
                show(event)
        return run.wait(timeout, check=False)
    except KeyboardInterrupt:
        say_run_continues(run.run_id)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def say_run_continues(run_id: str) -> None:
    """Tell an interrupted user that the run goes on, and how to follow or cancel it."""
    say(f"the run goes on: `citadel runs watch {run_id}` follows it, `citadel runs cancel {run_id}` ends it")


def print_result(view: RunView, *, json_: bool) -> None:
    """Print the output of a run that has ended.

    Raises:
        typer.Exit: It did not succeed.
    """
    if json_:
        print_json(view)
    elif view.output is not None:
        typer.echo(view.output if isinstance(view.output, str) else _indented(view.output))
    say(outcome(view))
    if view.status != "succeeded":
        raise typer.Exit(ExitCode.FAILED)


def _indented(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def outcome(view: RunView) -> str:
    """Return a line with a run's status, duration, error and trace id."""
    began = view.started_at or view.created_at
    seconds = f" in {(view.finished_at - began).total_seconds():.2f} s" if view.finished_at else ""
    step = f"{view.error.step_id}: " if view.error and view.error.step_id else ""
    error = f": {step}{view.error.message}" if view.error else ""
    trace = f" (trace {view.trace_id})" if view.trace_id else ""
    return f"run {view.run_id} {view.status}{seconds}{error}{trace}"
