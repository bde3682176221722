"""Workflows, batches and collections."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack
from uuid import uuid4

from citadel_client._async.connection import AsyncConnection
from citadel_client._async.runs import AsyncRun
from citadel_client.bodies import AsyncBatchSource, groups, pieces_async, replayable
from citadel_client.errors import InvalidRequest
from citadel_client.models import (
    Definition,
    Point,
    SearchOptions,
    Validation,
    WorkflowPlan,
    submission,
    with_context,
)
from citadel_client.operations import Operation, dump, path_of, post, query, read_as
from citadel_client.options import GROUP
from citadel_contracts.errors import FieldError
from citadel_contracts.runs import Metric, RunAccepted, SearchHit, SearchResponse, StoreResponse


class AsyncWorkflows:
    """Workflow definitions: submit, plan, validate."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def submit(
        self,
        definition: Definition,
        *,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncRun:
        """Start a run of a workflow; return as soon as it is recorded.

        Args:
            definition: The workflow's definition.
            context: Merged over the definition's own context.
            idempotency_key: The same key gives the same run; without a key, each submission starts a run.

        Raises:
            InvalidRequest: The definition is not valid; `errors` has every problem with its JSON pointer.
            Conflict: The key was used for another request.
        """
        body = dump(submission(definition, context, idempotency_key))
        accepted = await self._connection.call(post("/v1/workflows", RunAccepted, body))
        return AsyncRun(self._connection, accepted.run_id)

    async def plan(self, definition: Definition, *, context: Mapping[str, Any] | None = None) -> WorkflowPlan:
        """Return a workflow's order, graph and expected calls, without running it.

        Raises:
            InvalidRequest: The definition is not valid; `errors` has every problem with its JSON pointer.
        """
        body = dump(with_context(definition, context))
        return await self._connection.call(post("/v1/workflows/plan", WorkflowPlan, body))

    async def validate(self, definition: Definition, *, context: Mapping[str, Any] | None = None) -> Validation:
        """Return every problem of a definition, and warnings."""
        try:
            plan = await self.plan(definition, context=context)
        except InvalidRequest as error:
            return Validation(problems=list(error.errors) or [FieldError(pointer="", detail=error.message)])
        return Validation(warnings=plan.warnings)


class AsyncBatches:
    """Batches of embeddings: runs whose chunks fan out over the workers."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def submit(
        self,
        requests: AsyncBatchSource,
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncRun:
        """Start a run that embeds a batch; it is streamed to the server, so memory does not grow with it.

        Args:
            requests: Texts, or fields of `BatchRequest`. After a lost connection a list is sent again; a generator,
                which can be read only once, is not.
            model: Model of requests that name none.
            idempotency_key: The same key gives the same run.
            labels: Names and values by which the run is found.

        Raises:
            InvalidRequest: A request is not valid; the message names it, and nothing is stored.
        """
        named = [("label", f"{name}:{value}") for name, value in (labels or {}).items()]
        parameters = {"idempotency_key": idempotency_key or uuid4().hex, "model": model or None}
        operation = Operation(
            method="POST",
            path="/v1/embeddings/batches" + query(parameters, *named),
            content=lambda: pieces_async(requests),
            content_type="application/x-ndjson",
            read=read_as(RunAccepted),
            repeatable=replayable(requests),
        )
        return AsyncRun(self._connection, (await self._connection.call(operation)).run_id)


class AsyncCollections:
    """Collections of vectors; the server embeds texts that come without one."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def store(
        self,
        name: str,
        points: Iterable[Point],
        *,
        model: str | None = None,
        vector_name: str | None = None,
        distance: Metric | None = None,
        group: int = GROUP,
        progress: Callable[[int], None] | None = None,
    ) -> StoreResponse:
        """Store points, each with its vector or a text; storing them again changes nothing.

        Args:
            name: Name of the collection, which is created if it does not exist.
            points: `StorePoint` or its fields, read as they are needed.
            model: Model of the texts' vectors.
            vector_name: Which of a point's vectors; None for the unnamed one.
            distance: Metric of a collection that is created, cosine by default; an existing one must have it.
            group: Points per request, at most 1000.
            progress: Called after each request with the number of points stored.

        Raises:
            CitadelApiError: A group is refused; those before it are stored.
        """
        upserted, ids = 0, list[str | int]()
        options = {"model": model or None, "vector_name": vector_name, "distance": distance}
        given = {name: value for name, value in options.items() if value is not None}
        for encoded in groups(points, group):
            body = dump({"points": encoded} | given)
            reply = await self._connection.call(post(path_of("collections", name, "points"), StoreResponse, body))
            upserted += reply.upserted
            ids += reply.ids
            if progress:
                progress(upserted)
        return StoreResponse(upserted=upserted, ids=ids)

    async def search(
        self,
        name: str,
        *,
        text: str | None = None,
        embedding: Sequence[float] | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[SearchHit]:
        """Return the points nearest to a text or a vector, nearest first.

        Raises:
            NotFound: There is no such collection.
        """
        vector = None if embedding is None else [float(number) for number in embedding]
        wanted = {"text": text, "embedding": vector, **options}
        body = dump({field: value for field, value in wanted.items() if value is not None})
        operation = post(path_of("collections", name, "search"), SearchResponse, body)
        return (await self._connection.call(operation)).hits
