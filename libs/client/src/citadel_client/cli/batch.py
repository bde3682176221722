"""`citadel batch`: embed a file of texts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from citadel_client import Citadel, RetryPolicy
from citadel_client.cli.batch_files import recorded_ids
from citadel_client.cli.batch_modes import BatchJob, embed_as_run, embed_in_chunks, submit_run
from citadel_client.cli.files import Out, Overwrite, check_free
from citadel_client.cli.options import (
    ChunkSize,
    Dimensions,
    EncodingOption,
    ExitCode,
    InputType,
    Json,
    Model,
    NoCache,
    Parallel,
    Timeout,
    Url,
    UsageError,
    connect,
    embed_options,
)
from citadel_client.errors import CitadelApiError, InvalidRequest
from citadel_client.options import CHUNK_SIZE, PARALLEL
from citadel_client.terminal import print_json, say

LARGE = 10_000
"""Files of this many requests or more are sent as one run, which survives the end of this command."""
MOST = 50_000
"""Largest number of requests that the server takes as one run."""
STDIN = "-"
FileArgument = Annotated[
    Path, typer.Argument(help="A text per line, or NDJSON of {text, request_id}; `-`: standard input.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Append to OUT, and leave out the ids that it has.")]
Async = Annotated[bool, typer.Option("--async", help="Submit a run and print its id, for `citadel runs results`.")]
Wait = Annotated[bool, typer.Option("--wait", help="Submit a run and write its results as they come.")]


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
    async_: Async = False,
    wait: Wait = False,
    url: Url = None,
    timeout: Timeout = 300.0,
    json_: Json = False,
) -> None:
    """Embed a file of any length and write NDJSON of {request_id, embedding} or {request_id, error}, in order.

    Memory does not grow with the file. After an interruption, OUT has whole records, and --resume continues after
    them. A file of 10,000 to 50,000 requests is sent as one run, as with --wait, which an interruption does not end;
    other files are sent in chunks. Exits with 1 if requests failed. --json prints a summary (with --out).
    """
    _check(file, out, resume, overwrite, async_, wait, json_)
    options = embed_options(model, dimensions, input_type, no_cache)
    done = _recorded_ids(out) if out is not None and resume else frozenset()
    job = BatchJob(
        file=file,
        out=out,
        append=resume,
        done=done,
        encoding=encoding,
        options=options,
        chunk_size=chunk_size,
        parallel=parallel,
    )
    with connect(url, timeout, RetryPolicy()) as citadel:
        if async_:
            run_id = submit_run(citadel, job).run_id
            print_json({"run_id": run_id}) if json_ else typer.echo(run_id)
            return
        summary = embed_as_run(citadel, job) if wait else _embed(citadel, job)
    _print_summary(summary, json_)


def _check(file: Path, out: Path | None, resume: bool, overwrite: bool, async_: bool, wait: bool, json_: bool) -> None:
    """Check that the options fit together.

    Raises:
        UsageError: They contradict each other, or a file would be lost.
    """
    if async_ and (wait or out is not None):
        raise UsageError("--async only submits a run: leave out --wait and --out")
    if wait and str(file) == STDIN:
        raise UsageError("--wait reads its input twice: give a file")
    if out is None and (resume or overwrite):
        raise UsageError("--resume and --overwrite need --out")
    if json_ and out is None and not async_:
        raise UsageError("--json prints a summary; it needs --out")
    if not resume:
        check_free(out, overwrite, "continue it with --resume, or replace it with --overwrite")


def _recorded_ids(out: Path) -> frozenset[str | int]:
    try:
        return recorded_ids(out)
    except ValueError as error:
        raise UsageError(f"cannot resume {out}: {error}") from error


def _embed(citadel: Citadel, job: BatchJob) -> dict[str, Any]:
    """Embed as one run if the file is large and the server takes it, else in chunks."""
    count = job.count()
    if count is None or not LARGE <= count <= MOST or not _executes_runs(citadel):
        return embed_in_chunks(citadel, job)
    try:
        return embed_as_run(citadel, job)
    except InvalidRequest as error:
        if error.status != 413:
            raise
        say("the file is too large for one run of this server; sending it in chunks")
        return embed_in_chunks(citadel, job)


def _executes_runs(citadel: Citadel) -> bool:
    """Return whether the server has workers that execute runs."""
    try:
        return any(queue.name == "orchestration" and queue.workers for queue in citadel.queues())
    except CitadelApiError:
        return False


def _print_summary(summary: dict[str, Any], json_: bool) -> None:
    if json_:
        print_json(summary)
    else:
        before = f"; {summary['skipped']} were there before" if summary["skipped"] else ""
        counts = f"{summary['written']} written, {summary['failed']} failed"
        say(f"{counts}, {summary['cache_hits']} from the cache{before}")
    if summary["failed"]:
        raise typer.Exit(ExitCode.FAILED)
