"""`citadel batch`: a file of texts to a file of vectors."""

from pathlib import Path
from typing import Annotated, Any

import typer

from citadel_client import Citadel, RetryPolicy
from citadel_client.cli.batch_ways import Job, as_run, directly, submit
from citadel_client.cli.exits import ExitCode, UsageError
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
from citadel_client.cli.records import Encoding, continued
from citadel_client.cli.sinks import Out, Overwrite, check_free
from citadel_client.errors import CitadelApiError, InvalidRequest
from citadel_client.options import CHUNK_SIZE, PARALLEL
from citadel_client.terminal import print_json, say

LARGE = 10_000
"""Requests from which on a file goes as a run of the server's, which survives the end of this command."""
MOST = 50_000
"""Requests that the server takes as one run."""
STDIN = "-"
FileArgument = Annotated[
    Path, typer.Argument(help="A text per line, or NDJSON of {text, request_id}; `-`: standard input.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with OUT: leave out the ids it has.")]
EncodingOption = Annotated[Encoding, typer.Option("--encoding", help="Numbers, or base64 of little-endian float32.")]
Async = Annotated[bool, typer.Option("--async", help="Submit a run and print its id; `runs results` has the vectors.")]
Wait = Annotated[bool, typer.Option("--wait", help="Submit a run, and write its results as they come.")]


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
    """Embed a file of any length: NDJSON of {request_id, embedding} or {request_id, error}, in order.

    Memory does not grow with the file. Interrupted, it leaves whole records; --resume goes on after them.
    Files of 10,000 to 50,000 requests go to the server as one run, as with --wait: an interruption does not end it.
    Others are sent in chunks. Exits with 1 when requests failed. --json prints a summary (with --out).
    """
    _check(file, out, resume, overwrite, async_, wait, json_)
    options = embed_options(model, dimensions, input_type, no_cache)
    done = frozenset[str | int]() if out is None or not resume else _continued(out)
    job = Job(
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
            run_id = submit(citadel, job).run_id
            print_json({"run_id": run_id}) if json_ else typer.echo(run_id)
            return
        summary = as_run(citadel, job) if wait else _as_fits(citadel, job)
    _conclude(summary, json_)


def _check(file: Path, out: Path | None, resume: bool, overwrite: bool, async_: bool, wait: bool, json_: bool) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: Options contradict each other, or a file would be lost.
    """
    if async_ and (wait or out is not None):
        raise UsageError("--async only submits: it takes neither --wait nor --out")
    if wait and str(file) == STDIN:
        raise UsageError("--wait reads its input twice: give a file")
    if out is None and (resume or overwrite):
        raise UsageError("--resume and --overwrite need --out")
    if json_ and out is None and not async_:
        raise UsageError("--json prints a summary; it needs --out")
    if not resume:
        check_free(out, overwrite, "go on with --resume, or begin anew with --overwrite")


def _continued(out: Path) -> frozenset[str | int]:
    try:
        return continued(out)
    except ValueError as error:
        raise UsageError(f"cannot resume {out}: {error}") from error


def _as_fits(citadel: Citadel, job: Job) -> dict[str, Any]:
    """As a run where the file is large and the server takes it, else in chunks."""
    count = job.count()
    if count is None or not LARGE <= count <= MOST or not _takes_runs(citadel):
        return directly(citadel, job)
    try:
        return as_run(citadel, job)
    except InvalidRequest as error:
        if error.status != 413:
            raise
        say("the server does not take that much as one run; sending it in chunks")
        return directly(citadel, job)


def _takes_runs(citadel: Citadel) -> bool:
    """Whether somebody would execute a run."""
    try:
        return any(queue.name == "orchestration" and queue.workers for queue in citadel.queues())
    except CitadelApiError:
        return False


def _conclude(summary: dict[str, Any], json_: bool) -> None:
    if json_:
        print_json(summary)
    else:
        before = f"; {summary['skipped']} were there already" if summary["skipped"] else ""
        counts = f"{summary['written']} written, {summary['failed']} failed"
        say(f"{counts}, {summary['cache_hits']} from the cache{before}")
    if summary["failed"]:
        raise typer.Exit(ExitCode.FAILED)
