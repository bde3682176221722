"""The two ways of a batch: chunk by chunk from here, or as one run of the server's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import typer

from citadel_client import Citadel, EmbedOptions, Run
from citadel_client.chunks import Progress
from citadel_client.cli.exits import ExitCode, UsageError
from citadel_client.cli.inputs import opened
from citadel_client.cli.records import Encoding, Ledger
from citadel_client.cli.requests import Request, RequestId, read
from citadel_client.cli.sinks import sink
from citadel_client.cli.watching import say_it_goes_on
from citadel_client.decoders import BatchAnswer
from citadel_client.errors import CitadelApiError
from citadel_client.terminal import Bar, progress, say
from citadel_client.vectors import Embedded

FLUSH_EVERY = 64
"""Records after which the file and the progress bar are brought up to date."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be embedded, and where it goes.

    Attributes:
        file: Requests, `-` for standard input.
        out: Where records go; None for standard output.
        append: Whether they go after what is there.
        done: Ids that are there already.
        encoding: How vectors are written.
        options: How texts are embedded.
        chunk_size: Texts per request, in chunks.
        parallel: Requests at once, in chunks.
    """

    file: Path
    out: Path | None
    append: bool
    done: frozenset[RequestId]
    encoding: Encoding
    options: EmbedOptions
    chunk_size: int
    parallel: int

    def requests(self, lines: IO[str]) -> Iterator[Request]:
        """The requests that are left."""
        return (request for request in read(lines) if request.request_id not in self.done)

    def count(self) -> int | None:
        """Lines that are left; unknown for a stream."""
        if not self.file.is_file():
            return None
        with self.file.open("rb") as lines:
            return max(0, sum(1 for line in lines if line.strip()) - len(self.done))

    def summary(self, ledger: Ledger, **facts: Any) -> dict[str, Any]:
        """What was done."""
        return {"written": ledger.written, "failed": ledger.failed, "skipped": len(self.done), **facts}


def directly(citadel: Citadel, job: Job) -> dict[str, Any]:
    """Send chunks, and write what comes back."""
    with opened(job.file) as lines, sink(job.out, append=job.append) as out:
        ledger = Ledger(job.requests(lines), job.encoding)
        with progress("embedding", job.count()) as bar:
            state = _Watch(bar, out)
            for record in ledger.records(
                lambda texts: citadel.embed_many(
                    texts,
                    chunk_size=job.chunk_size,
                    parallel=job.parallel,
                    progress=state.on_progress,
                    **job.options,
                )
            ):
                out.write(record)
            bar.at(ledger.written)
    seen = state.progress
    return job.summary(ledger, cache_hits=seen.cache_hits, tokens=seen.tokens, model=seen.model)


class _Watch:
    """Shows progress, and makes sure that what is shown is on disk."""

    def __init__(self, bar: Bar, out: IO[bytes]) -> None:
        self.progress = Progress()
        self._bar = bar
        self._out = out

    def on_progress(self, progress: Progress) -> None:
        self._out.flush()
        self.progress = progress
        self._bar.at(progress.done)


def submit(citadel: Citadel, job: Job) -> Run:
    """Have the file embedded by a run.

    Raises:
        UsageError: A request cannot be sent; nothing is submitted then.
    """
    with opened(job.file) as lines:
        return citadel.batches.submit(_items(job, lines, strict=True), model=job.options.get("model"))


def as_run(citadel: Citadel, job: Job) -> dict[str, Any]:
    """Have the file embedded by a run, and write its results as they come.

    Raises:
        typer.Exit: Interrupted; the run goes on.
    """
    if not _has_items(job):
        return directly(citadel, job)
    with opened(job.file) as lines, progress("submitting", job.count()) as bar:
        run = citadel.batches.submit(_items(job, lines, strict=False, bar=bar), model=job.options.get("model"))
    say(f"run {run.run_id}")
    try:
        return _collected(run, job)
    except KeyboardInterrupt:
        say_it_goes_on(run.run_id)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _collected(run: Run, job: Job) -> dict[str, Any]:
    facts: dict[str, Any] = {"cache_hits": 0, "tokens": 0, "model": "", "run_id": run.run_id}
    with opened(job.file) as lines, sink(job.out, append=job.append) as out:
        ledger = Ledger(job.requests(lines), job.encoding)
        with progress("embedding", job.count()) as bar:
            for record in ledger.records(lambda texts: _answers(texts, run, facts)):
                out.write(record)
                if ledger.written % FLUSH_EVERY == 0:
                    out.flush()
                    bar.at(ledger.written)
            bar.at(ledger.written)
    return job.summary(ledger, **facts)


def _answers(texts: Iterator[str], run: Run, facts: dict[str, Any]) -> Iterator[Embedded]:
    """What the run made of each text.

    Raises:
        RunFailed: It ended before it had answered them all.
    """
    answers = run.results()
    for index, text in enumerate(texts):
        answer = next(answers, None)
        if answer is None:
            run.wait()
            raise CitadelApiError(f"run {run.run_id} has fewer results than requests")
        facts["cache_hits"] += answer.embeddings.cache_hits or 0
        facts["model"] = answer.embeddings.model or facts["model"]
        yield _embedded(index, text, answer)


def _embedded(index: int, text: str, answer: BatchAnswer) -> Embedded:
    found = answer.embeddings
    if answer.failed or not found.encoded:
        first = found.errors[0] if found.errors else {"message": "no vector", "code": "error"}
        return Embedded(index=index, text=text, error=CitadelApiError(first["message"], code=first["code"]))
    return Embedded(index=index, text=text, encoded=found.encoded[0], truncated=bool(found.truncated))


def _items(job: Job, lines: IO[str], *, strict: bool, bar: Bar | None = None) -> Iterator[dict[str, Any]]:
    """The requests as the server takes them; what is unfit is refused where `strict`, else left out."""
    fields = {name: value for name, value in job.options.items() if name != "model" and value is not None}
    for number, request in enumerate(job.requests(lines), start=1):
        if request.problem is None:
            yield {"text": request.text, "request_id": request.request_id, **fields}
        elif strict:
            raise UsageError(f"request {request.request_id!r}: {request.problem}; nothing was submitted")
        if bar:
            bar.at(number)


def _has_items(job: Job) -> bool:
    with opened(job.file) as lines:
        return any(request.problem is None for request in job.requests(lines))
