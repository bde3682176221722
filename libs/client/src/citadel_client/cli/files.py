"""Files that commands read and write; `-`, or none, is standard input or output."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from citadel_client.cli.options import UsageError

Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[IO[str]]:
    """Open a text file for reading.

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
    """Yield the lines that are not empty, without their line ends."""
    return (line.rstrip("\r\n") for line in lines if line.strip())


def check_free(out: Path | None, overwrite: bool, advice: str = "replace it with --overwrite") -> None:
    """Check that writing loses nothing.

    Raises:
        UsageError: The file has content, and --overwrite is not given.
    """
    if out is None and overwrite:
        raise UsageError("--overwrite needs --out")
    if out is not None and out.exists() and out.stat().st_size and not overwrite:
        raise UsageError(f"{out} exists; {advice}")


@contextlib.contextmanager
def opened_for_writing(out: Path | None, *, append: bool = False) -> Iterator[IO[bytes]]:
    """Open a file for writing.

    Raises:
        UsageError: It cannot be written.
    """
    if out is None:
        yield sys.stdout.buffer
        return
    try:
        file = out.open("ab" if append else "wb")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error
    with file:
        yield file
