"""Texts and requests out of arguments, files and standard input."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from citadel_client.cli.exits import UsageError


@contextmanager
def opened(path: Path | None) -> Iterator[IO[str]]:
    """A file for reading; `-` or None means standard input.

    Raises:
        UsageError: It cannot be read.
    """
    if path is None or str(path) == "-":
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        yield sys.stdin
        return
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


def texts_of(lines: IO[str]) -> Iterator[str]:
    """Each line that is not empty."""
    return (line.rstrip("\r\n") for line in lines if line.strip())


def no_input() -> bool:
    """Whether standard input is a terminal at which nobody was asked for anything."""
    return sys.stdin is None or sys.stdin.isatty()
