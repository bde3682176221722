"""Follow a run: a live table on a terminal, a line per change elsewhere; then what came of it."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import orjson
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from citadel_client import Run
from citadel_client.cli.exits import ExitCode
from citadel_client.cli.progress import RunProgress, StepProgress
from citadel_client.terminal import err, print_json, say
from citadel_contracts.runs import RunEvent, RunView

COLOURS = {
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


class Screen(Protocol):
    """Shows how a run does."""

    def show(self, event: RunEvent) -> None:
        """An event has been taken in."""


class _Table:
    """A table that is drawn anew several times a second."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress

    def show(self, event: RunEvent) -> None:
        """The next drawing shows it."""

    def __rich__(self) -> Table:
        table = Table(title=f"run {self._progress.run_id}: {self._progress.status}", title_justify="left")
        for column in ("step", "type", "status", "items", "seconds", ""):
            table.add_column(column, overflow="fold")
        for step_id, step in list(self._progress.steps.items())[:MOST_ROWS]:
            table.add_row(Text(step_id), step.type, coloured(step.status), _items(step), _seconds(step), _note(step))
        if (more := len(self._progress.steps) - MOST_ROWS) > 0:
            table.add_row(f"and {more} more", "", "", "", "", "")
        return table


class _Lines:
    """A line for each change of a step, and for each tenth of many items."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._told: dict[str, int] = {}

    def show(self, event: RunEvent) -> None:
        """Tell it, where it is worth a line."""
        what = event.type.replace("_", " ").removeprefix("step ")
        if event.step_id is None:
            say(f"{event.type.replace('_', ' ')}")
        elif event.item is None or event.item < 0:
            step = self._progress.steps[event.step_id]
            say(f"{event.step_id}: {what}{': ' + step.error if step.error else ''}")
        else:
            self._tell_items(event.step_id, self._progress.steps[event.step_id])

    def _tell_items(self, step_id: str, step: StepProgress) -> None:
        ended = step.done + step.failed
        if step.total and ended * TENTHS // step.total > self._told.get(step_id, 0):
            self._told[step_id] = ended * TENTHS // step.total
            say(f"{step_id}: {_items(step)} items")


def coloured(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=COLOURS.get(status, "dim"))


def _items(step: StepProgress) -> str:
    if step.total is None:
        return ""
    return f"{step.done + step.failed}/{step.total}" + (f", {step.failed} failed" if step.failed else "")


def _seconds(step: StepProgress) -> str:
    return "" if step.seconds is None else f"{step.seconds:.1f}"


def _note(step: StepProgress) -> Text:
    return Text(step.error or (f"attempt {step.attempt}" if step.attempt > 1 else ""))


@contextlib.contextmanager
def _screen(progress: RunProgress) -> Iterator[Screen]:
    if not err.is_terminal:
        yield _Lines(progress)
        return
    table = _Table(progress)
    with Live(table, console=err, refresh_per_second=8):
        yield table


def follow(run: Run, timeout: float | None = None) -> RunView:
    """Show the run until it ends.

    Raises:
        typer.Exit: Interrupted; the run goes on.
    """
    try:
        progress = RunProgress.of(run.show(outputs=False))
        with _screen(progress) as screen:
            for event in run.events(timeout=timeout):
                progress.apply(event)
                screen.show(event)
        return run.wait(timeout, check=False)
    except KeyboardInterrupt:
        say_it_goes_on(run.run_id)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def say_it_goes_on(run_id: str) -> None:
    """What an interrupted user should know."""
    say(f"the run goes on: `citadel runs watch {run_id}` follows it, `citadel runs cancel {run_id}` ends it")


def conclude(view: RunView, *, json_: bool) -> None:
    """Print what came of a run.

    Raises:
        typer.Exit: It did not succeed.
    """
    if json_:
        print_json(view)
    elif view.output is not None:
        typer.echo(view.output if isinstance(view.output, str) else _indented(view.output))
    say(ending(view))
    if view.status != "succeeded":
        raise typer.Exit(ExitCode.FAILED)


def _indented(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def ending(view: RunView) -> str:
    """How a run ended, in a line."""
    began = view.started_at or view.created_at
    seconds = f" in {(view.finished_at - began).total_seconds():.2f} s" if view.finished_at else ""
    step = f"{view.error.step_id}: " if view.error and view.error.step_id else ""
    return f"run {view.run_id} {view.status}{seconds}{f': {step}{view.error.message}' if view.error else ''}"
