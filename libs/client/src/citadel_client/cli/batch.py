"""`citadel batch`: a file of texts to a file of vectors."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from citadel_client.chunks import Progress
from citadel_client.cli.console import Bar, print_json, progress, say
from citadel_client.cli.exits import ExitCode, UsageError
from citadel_client.cli.inputs import opened
from citadel_client.cli.options import (
    ChunkSize,
    Dimensions,
    InputType,
    Json,
    Model,
    NoCache,
    Parallel,
    Timeout,
    Url,
    connect,
    embed_options,
)
from citadel_client.cli.records import Encoding, Ledger, continued
from citadel_client.cli.requests import read
from citadel_client.client import CHUNK_SIZE, PARALLEL
from citadel_client.retries import RetryPolicy

FileArgument = Annotated[
    Path, typer.Argument(help="A text per line, or NDJSON of {text, request_id}; `-`: standard input.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; default: standard output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with OUT: leave out the ids it has.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin OUT anew where it exists.")]
EncodingOption = Annotated[Encoding, typer.Option("--encoding", help="Numbers, or base64 of little-endian float32.")]


def batch(  # noqa: PLR0913, PLR0917  (one per option of the command)
    file: FileArgument,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    encoding: EncodingOption = "float",
    model: Model = None,
    dimensions: Dimensions = None,
    input_type: InputType = None,
    no_cache: NoCache = False,
    chunk_size: ChunkSize = CHUNK_SIZE,
    parallel: Parallel = PARALLEL,
    url: Url = None,
    timeout: Timeout = 300.0,
    json_: Json = False,
) -> None:
    """Embed a file of any length: NDJSON of {request_id, embedding} or {request_id, error}, in order.

    Memory does not grow with the file. Interrupted, it leaves whole records; --resume goes on after them.
    Exits with 1 when requests failed. --json prints a summary (with --out).
    """
    options = embed_options(model, dimensions, input_type, no_cache)
    done = _ids_to_skip(out, resume, overwrite)
    if json_ and out is None:
        raise UsageError("--json prints a summary; it needs --out")
    with connect(url, timeout, RetryPolicy()) as citadel, opened(file) as lines, _sink(out, resume) as sink:
        requests = (request for request in read(lines) if request.request_id not in done)
        ledger = Ledger(requests, encoding)
        with progress("embedding", _count(file, len(done))) as bar:
            state = _Watch(bar, sink)
            for record in ledger.records(
                lambda texts: citadel.embed_many(
                    texts, chunk_size=chunk_size, parallel=parallel, progress=state.on_progress, **options
                )
            ):
                sink.write(record)
            bar.at(ledger.written)
    _conclude(ledger, state.progress, len(done), json_)


class _Watch:
    """Shows progress, and makes sure that what is shown is on disk."""

    def __init__(self, bar: Bar, sink: IO[bytes]) -> None:
        self.progress = Progress()
        self._bar = bar
        self._sink = sink

    def on_progress(self, progress: Progress) -> None:
        self._sink.flush()
        self.progress = progress
        self._bar.at(progress.done)


def _ids_to_skip(out: Path | None, resume: bool, overwrite: bool) -> frozenset[str | int]:
    if out is None:
        if resume or overwrite:
            raise UsageError("--resume and --overwrite need --out")
        return frozenset()
    if resume:
        try:
            return continued(out)
        except ValueError as error:
            raise UsageError(f"cannot resume {out}: {error}") from error
    if out.exists() and out.stat().st_size and not overwrite:
        raise UsageError(f"{out} exists; go on with --resume, or begin anew with --overwrite")
    return frozenset()


@contextlib.contextmanager
def _sink(out: Path | None, resume: bool) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        return
    try:
        file = out.open("ab" if resume else "wb")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error
    with file:
        yield file


def _count(file: Path, done: int) -> int | None:
    """Lines to do; unknown for a stream."""
    if not file.is_file():
        return None
    with file.open("rb") as lines:
        return max(0, sum(1 for line in lines if line.strip()) - done)


def _conclude(ledger: Ledger, seen: Progress, skipped: int, json_: bool) -> None:
    if json_:
        facts = {"written": ledger.written, "failed": ledger.failed, "skipped": skipped}
        print_json({**facts, "cache_hits": seen.cache_hits, "tokens": seen.tokens, "model": seen.model})
    else:
        before = f"; {skipped} were there already" if skipped else ""
        say(f"{ledger.written} written, {ledger.failed} failed, {seen.cache_hits} from the cache{before}")
    if ledger.failed:
        raise typer.Exit(ExitCode.FAILED)
