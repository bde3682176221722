"""Where records go: a file that is not overwritten unasked, or standard output."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from citadel_client.cli.exits import UsageError

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; default: standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin OUT anew where it exists.")]


def check_free(out: Path | None, overwrite: bool, otherwise: str = "begin anew with --overwrite") -> None:
    """Make sure that nothing is lost by writing.

    Raises:
        UsageError: The file has content, and nobody said to overwrite it.
    """
    if out is None and overwrite:
        raise UsageError("--overwrite needs --out")
    if out is not None and out.exists() and out.stat().st_size and not overwrite:
        raise UsageError(f"{out} exists; {otherwise}")


@contextlib.contextmanager
def sink(out: Path | None, *, append: bool = False) -> Iterator[IO[bytes]]:
    """The file, or standard output.

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
