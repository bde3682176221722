"""Batches of embedding requests: recorded chunk by chunk in one transaction, results streamed while they run."""

import asyncio
import contextlib
import functools
import hashlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from citadel_common.embeddings.requests import as_list, check_texts
from citadel_common.embeddings.vectors import from_base64
from citadel_common.errors import CitadelError, InvalidInput, Overloaded, PayloadTooLarge
from citadel_common.settings.common import LimitSettings
from citadel_common.stores.postgres import Cursor
from citadel_common.validation import bad_fields, invalid_input
from citadel_contracts import Lane
from citadel_contracts.embeddings import BatchRequest, EncodingFormat
from citadel_contracts.runs import FINISHED, EmbeddingBatchHead, RunAccepted
from citadel_orchestration.api.runs.service import RunService, accepted_of, read_through_outage
from citadel_orchestration.db import batches
from citadel_orchestration.db.models import NewRun, StepRef
from citadel_orchestration.db.runs import Submitted, submit
from citadel_orchestration.engine import traces
from citadel_orchestration.engine.submission import new_run_id
from citadel_orchestration.settings import WorkflowSettings
from citadel_orchestration.steps.embedding_chunk import definition_of_batch

MAX_CHUNK_CHARS = 4 * 2**20
"""Characters of texts after which a chunk ends early: the requests of a chunk are in memory together."""


@dataclass(frozen=True, kw_only=True)
class BatchService:
    """Records batches and streams their results.

    Attributes:
        runs: The service of runs; a batch is a run.
        settings: Sizes of batches and chunks.
        limits: Limits of texts.
        default_model: Name of the model for requests that name none.
        uploads: Bounds concurrent uploads: each holds a connection to PostgreSQL.
    """

    runs: RunService
    settings: WorkflowSettings
    limits: LimitSettings
    default_model: str
    uploads: asyncio.Semaphore

    async def accept(self, lines: AsyncIterator[Any], head: EmbeddingBatchHead, caller: str) -> RunAccepted:
        """Record a batch, holding at most one chunk of it in memory; an invalid batch leaves nothing.

        Args:
            lines: The requests, decoded.
            head: Model, labels and idempotency key of the batch.
            caller: Name of the caller.

        Raises:
            InvalidInput: A request is not valid; the message names it.
            PayloadTooLarge: There are too many requests.
            Overloaded: Too many batches are being uploaded.
        """
        if self.uploads.locked():
            raise Overloaded("too many batches are being uploaded; try again later")
        run = replace(self._run(new_run_id(), head), caller=caller)
        try:
            async with self.uploads:
                items = await self._record(run, lines, head)
        except _AlreadySubmitted as error:
            return accepted_of(error.existing)
        ready = [StepRef(run_id=run.run_id, step_id=batches.STEP, item=item) for item in items]
        await asyncio.to_thread(self.runs.dispatcher.dispatch, ready, run.lane)
        return RunAccepted(run_id=str(run.run_id), workflow_id=run.workflow_id, status="queued")

    async def _record(self, run: NewRun, lines: AsyncIterator[Any], head: EmbeddingBatchHead) -> list[int]:
        """Record the batch in one transaction and return the chunks that are ready."""
        # The digest covers the requests and not the chunks, whose size is a setting that may change.
        digest, chunks = hashlib.blake2b(digest_size=16), 0
        async with _in_threads(self.runs.database.cursor()) as cursor:
            await asyncio.to_thread(submit, cursor, run, republish=self.runs.commands.republish)
            async for chunk in self._chunks(lines, head.model):
                requests = [orjson.dumps(request) for request in chunk]
                digest.update(b"".join(request + b"\n" for request in requests))
                body = b"[" + b",".join(requests) + b"]"
                await asyncio.to_thread(batches.add_chunk, cursor, run.run_id, chunks, body, requests=len(requests))
                chunks += 1
            if not chunks:
                raise InvalidInput.at("requests", "must hold at least one request")
            existing = await asyncio.to_thread(batches.mark, cursor, run, digest.digest(), head.idempotency_key)
            if existing is not None:
                raise _AlreadySubmitted(existing)
            return await asyncio.to_thread(self._begin, cursor, run.run_id, chunks)

    async def results(
        self, run_id: UUID, encoding: EncodingFormat, *, after: int = 0, follow: bool = True
    ) -> AsyncIterator[bytes]:
        """Yield a line per request, in order, from the one after `after`, as chunks end; raises as `follow`.

        Args:
            run_id: The batch.
            encoding: Form of the vectors.
            after: Number of results to leave out.
            follow: Whether to go on until the batch ends.
        """
        place = await read_through_outage(
            functools.partial(asyncio.to_thread, batches.place_of, self.runs.database, run_id, after)
        )
        if place is None:
            return
        first, index = place
        async for _ in self.runs.notifier.follow(run_id):
            ended = await read_through_outage(lambda: self.runs.status(run_id)) in FINISHED
            while found := await read_through_outage(functools.partial(asyncio.to_thread, self._page, run_id, first)):
                for item, requests, output, error in found:
                    lines = list(_lines(index, requests, output, error, encoding))
                    yield b"".join(lines[max(0, after - index) :])
                    first, index = item + 1, index + len(lines)
            if ended or not follow:
                return

    def _page(self, run_id: UUID, first: int) -> list[tuple[int, Any, Any, Any]]:
        found = batches.results(self.runs.database, run_id, first)
        return [
            (item, requests, output, error or {"code": status, "message": f"the chunk was {status}"})
            for item, status, requests, output, error in found
        ]

    def _run(self, run_id: UUID, head: EmbeddingBatchHead) -> NewRun:
        definition = definition_of_batch("embedding_batch", batches.STEP, max_parallel=self.settings.batch_parallel)
        return NewRun(
            run_id=run_id,
            kind="batch",
            workflow_id="embedding_batch",
            definition=orjson.dumps(definition),
            context=orjson.dumps({"model": head.model or self.default_model}),
            steps=[batches.STEP],
            roots=[],
            fingerprint=run_id.bytes,
            lane=Lane.BATCH.value,
            labels=head.labels,
            trace=traces.of_new_run(run_id),
        )

    async def _chunks(self, lines: AsyncIterator[Any], model: str | None) -> AsyncIterator[list[dict[str, Any]]]:
        chunk: list[dict[str, Any]] = []
        count = size = 0
        async for line in lines:
            if count >= self.settings.max_batch_requests:
                raise PayloadTooLarge.at("requests", f"holds more than {self.settings.max_batch_requests}, the limit")
            chunk.append(self._validated(line, count, model))
            count += 1
            size += sum(map(len, as_list(chunk[-1]["text"])))
            if len(chunk) >= self.settings.batch_chunk or size >= MAX_CHUNK_CHARS:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _validated(self, line: Any, index: int, model: str | None) -> dict[str, Any]:
        try:
            request = line if isinstance(line, BatchRequest) else BatchRequest.model_validate(line)
        except ValidationError as error:
            first = bad_fields(error)[0]
            raise invalid_input([replace(first, path=("requests", index, *first.path))]) from None
        try:
            check_texts(request.text, self.limits)
        except CitadelError as error:
            raise error.about(f"requests[{index}].{error.field}", error.index) from None
        found = request.model_dump(exclude_defaults=True) | {"text": request.text}
        return found | {"model": request.model or model or self.default_model}

    def _begin(self, cursor: Cursor, run_id: UUID, chunks: int) -> list[int]:
        return batches.begin(
            cursor,
            run_id,
            chunks=chunks,
            parallel=self.settings.batch_parallel,
            republish=self.runs.commands.republish,
        )


class _AlreadySubmitted(Exception):
    """The same batch was submitted before. Raised inside the transaction, to roll back the second one."""

    def __init__(self, existing: Submitted) -> None:
        super().__init__()
        self.existing = existing


@contextlib.asynccontextmanager
async def _in_threads(manager: contextlib.AbstractContextManager[Cursor]) -> AsyncIterator[Cursor]:
    """Enter and leave a context manager in threads: both wait for PostgreSQL."""
    cursor = await asyncio.to_thread(manager.__enter__)
    try:
        yield cursor
    except BaseException:
        await asyncio.to_thread(manager.__exit__, *sys.exc_info())
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)


def _lines(index: int, requests: list[Any], output: Any, error: Any, encoding: EncodingFormat) -> Iterator[bytes]:
    """Yield the result lines of one chunk."""
    parts = (output or {}).get("results") or [{"error": error} for _ in requests]
    for offset, (request, part) in enumerate(zip(requests, parts, strict=True)):
        failed = part.get("error")
        errors = [{"index": 0, **failed}] if failed else part.get("errors", [])
        line = {
            "index": index + offset,
            "request_id": request.get("request_id"),
            "embeddings": [_encoded(vector, encoding) for vector in part.get("vectors", [])],
            "model": part.get("model") or request.get("model"),
            "dimensions": part.get("dimensions", 0),
            "cache_hits": part.get("cache_hits", 0),
            "truncated": part.get("truncated", []),
            "errors": errors,
        }
        yield orjson.dumps(line) + b"\n"


def _encoded(vector: str | None, encoding: EncodingFormat) -> Any:
    return vector if vector is None or encoding == "base64" else from_base64(vector).tolist()
