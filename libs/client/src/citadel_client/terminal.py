"""Terminal output: results go to standard output, everything else to standard error."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import orjson
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
LINES = 10
"""Lines of progress if there is no terminal to draw a bar on."""

out = Console(soft_wrap=False)
err = Console(stderr=True, soft_wrap=True)


def say(line: str) -> None:
    """Print a line for the user; a terminal that is gone is not an error."""
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
    """Print a table; cells are printed as they are, not as markup."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    widened(out).print(table)


def print_list(found: Sequence[T], json_: bool, columns: Sequence[str], row: Callable[[T], Iterable[Any]]) -> None:
    """Print a list as one JSON document, or as a table with a row per item."""
    if json_:
        print_json(found)
    else:
        print_table(columns, map(row, found))


def widened(console: Console) -> Console:
    """Return the console for tables: 160 columns if there is no terminal."""
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(width=160)


class ProgressBar:
    """Progress as a bar on a terminal, and as a few lines elsewhere."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._printed = 0
        self._bar = _bar() if err.is_terminal else None
        self._task = self._bar.add_task(label, total=total) if self._bar else None

    def update(self, done: int, total: int | None = None) -> None:
        """Show that `done` items are done; `total` sets their number."""
        if total is not None and total != self._total:
            self._total = total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total)
        elif done - self._printed >= self._step() or done == self._total != self._printed:
            self._printed = done
            of = f" of {self._total}, {100 * done // max(1, self._total)} %" if self._total is not None else ""
            say(f"{self._label}: {done}{of}")

    def _step(self) -> int:
        return max(1, self._total // LINES) if self._total else 1000

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(show_speed=True))
    return Progress(*columns, TimeElapsedColumn(), console=err)
