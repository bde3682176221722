"""The two modes of `citadel batch`: requests sent in chunks, or one run on the server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import typer

from citadel_client import BatchAnswer, Citadel, CitadelApiError, Embedded, EmbedOptions, Progress, Run
from citadel_client.cli.batch_files import RecordStream, Request, RequestId, read
from citadel_client.cli.files import opened, opened_for_writing
from citadel_client.cli.options import Encoding, ExitCode, UsageError
from citadel_client.cli.watching import say_run_continues
from citadel_client.terminal import ProgressBar, say

FLUSH_EVERY = 64
"""Records after which the file is flushed and the progress bar updated."""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """Input, output and options of a batch.

    Attributes:
        file: File of requests, `-` for standard input.
        out: File of records; None for standard output.
        append: Whether records are appended to `out`.
        done: Ids whose records are in `out` already.
        encoding: How vectors are written.
        options: How texts are embedded.
        chunk_size: Texts per request, in chunks.
        parallel: Number of requests at once, in chunks.
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
        """Yield the requests that have no record yet."""
        return (request for request in read(lines) if request.request_id not in self.done)

    def count(self) -> int | None:
        """Return the number of requests without a record; None for a stream."""
        if not self.file.is_file():
            return None
        with self.file.open("rb") as lines:
            return max(0, sum(1 for line in lines if line.strip()) - len(self.done))

    def summary(self, records: RecordStream, **more: Any) -> dict[str, Any]:
        """Return the counts of a finished batch."""
        return {"written": records.written, "failed": records.failed, "skipped": len(self.done), **more}


def embed_in_chunks(citadel: Citadel, job: BatchJob) -> dict[str, Any]:
    """Send the requests in chunks and write the records; return the summary."""
    total = Progress()
    with opened(job.file) as lines, opened_for_writing(job.out, append=job.append) as out:
        records = RecordStream(job.requests(lines), job.encoding)
        with ProgressBar("embedding", job.count()) as bar:

            def on_progress(progress: Progress) -> None:
                nonlocal total
                out.flush()  # the bar counts only records that are in the file
                total = progress
                bar.update(progress.done)

            def embed(texts: Iterator[str]) -> Iterator[Embedded]:
                sizes = {"chunk_size": job.chunk_size, "parallel": job.parallel}
                return citadel.embed_many(texts, progress=on_progress, **sizes, **job.options)

            out.writelines(records.records(embed))
            bar.update(records.written)
    return job.summary(records, cache_hits=total.cache_hits, tokens=total.tokens, model=total.model)


def submit_run(citadel: Citadel, job: BatchJob) -> Run:
    """Start a run that embeds the file.

    Raises:
        UsageError: A request cannot be sent; nothing is submitted.
    """
    with opened(job.file) as lines:
        return citadel.batches.submit(_items(job, lines, strict=True), model=job.options.get("model"))


def embed_as_run(citadel: Citadel, job: BatchJob) -> dict[str, Any]:
    """Start a run that embeds the file and write its results as they come; return the summary.

    Raises:
        typer.Exit: Interrupted; the run goes on.
    """
    if not _has_items(job):
        return embed_in_chunks(citadel, job)
    with opened(job.file) as lines, ProgressBar("submitting", job.count()) as bar:
        run = citadel.batches.submit(_items(job, lines, strict=False, bar=bar), model=job.options.get("model"))
    say(f"run {run.run_id}")
    try:
        return _write_results(run, job)
    except KeyboardInterrupt:
        say_run_continues(run.run_id)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _write_results(run: Run, job: BatchJob) -> dict[str, Any]:
    counts: dict[str, Any] = {"cache_hits": 0, "tokens": 0, "model": "", "run_id": run.run_id}
    with opened(job.file) as lines, opened_for_writing(job.out, append=job.append) as out:
        records = RecordStream(job.requests(lines), job.encoding)
        with ProgressBar("embedding", job.count()) as bar:
            for record in records.records(lambda texts: _results(texts, run, counts)):
                out.write(record)
                if records.written % FLUSH_EVERY == 0:
                    out.flush()
                    bar.update(records.written)
            bar.update(records.written)
    return job.summary(records, **counts)


def _results(texts: Iterator[str], run: Run, counts: dict[str, Any]) -> Iterator[Embedded]:
    """Yield the run's result for each text, and count.

    Raises:
        RunFailed: The run ended before it had a result for each text.
    """
    answers = run.results()
    for index, text in enumerate(texts):
        answer = next(answers, None)
        if answer is None:
            run.wait()
            raise CitadelApiError(f"run {run.run_id} has fewer results than requests")
        counts["cache_hits"] += answer.embeddings.cache_hits or 0
        counts["model"] = answer.embeddings.model or counts["model"]
        yield _embedded(index, text, answer)


def _embedded(index: int, text: str, answer: BatchAnswer) -> Embedded:
    found = answer.embeddings
    if answer.failed or not found.encoded:
        first = found.errors[0] if found.errors else {"message": "no vector", "code": "error"}
        return Embedded(index=index, text=text, error=CitadelApiError(first["message"], code=first["code"]))
    return Embedded(index=index, text=text, encoded=found.encoded[0], truncated=bool(found.truncated))


def _items(job: BatchJob, lines: IO[str], *, strict: bool, bar: ProgressBar | None = None) -> Iterator[dict[str, Any]]:
    """Yield the requests as the server takes them; one that cannot be sent is an error if `strict`, else left out."""
    fields = {name: value for name, value in job.options.items() if name != "model" and value is not None}
    for number, request in enumerate(job.requests(lines), start=1):
        if request.problem is None:
            yield {"text": request.text, "request_id": request.request_id, **fields}
        elif strict:
            raise UsageError(f"request {request.request_id!r}: {request.problem}; nothing was submitted")
        if bar:
            bar.update(number)


def _has_items(job: BatchJob) -> bool:
    with opened(job.file) as lines:
        return any(request.problem is None for request in job.requests(lines))
