"""What the command prints: results on standard output, everything else on standard error."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

LINES = 10
"""Lines of progress, where there is no terminal to draw a bar on."""

out = Console(soft_wrap=False)
err = Console(stderr=True, soft_wrap=True)


def say(line: str) -> None:
    """Tell the user something; a terminal that has gone away is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        err.print(line, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.buffer.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> None:
    """Print a table; texts are shown as they are, never as markup."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    widened(out).print(table)


def widened(console: Console) -> Console:
    """The console for tables: without a terminal a line may be as long as it needs."""
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=160)


class Bar:
    """How far something is: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._told = 0
        self._bar = _bar() if err.is_terminal else None
        self._task = self._bar.add_task(label, total=total) if self._bar else None

    def at(self, done: int) -> None:
        """`done` of the total are done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)
        elif done - self._told >= self._step() or done == self._total != self._told:
            self._told = done
            of = f" of {self._total}, {100 * done // max(1, self._total)} %" if self._total is not None else ""
            say(f"{self._label}: {done}{of}")

    def of(self, done: int, total: int) -> None:
        """`done` of `total` are done, where the total is known only now."""
        if self._total != total:
            self._total = total
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, total=total)
        self.at(done)

    def _step(self) -> int:
        return max(1, self._total // LINES) if self._total else 1000

    def start(self) -> None:
        """Show it."""
        if self._bar:
            self._bar.start()

    def stop(self) -> None:
        """Leave it as it is."""
        if self._bar:
            self._bar.stop()


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(show_speed=True))
    return Progress(*columns, TimeElapsedColumn(), console=err)


@contextlib.contextmanager
def progress(label: str, total: int | None) -> Iterator[Bar]:
    """A bar for as long as the block runs."""
    bar = Bar(label, total)
    bar.start()
    try:
        yield bar
    finally:
        bar.stop()
