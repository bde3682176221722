"""Workflows, batches and collections, awaited; `workflows` documents arguments, results and errors."""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

from citadel_client import run_calls, run_flows
from citadel_client.async_runs import AsyncRun
from citadel_client.drivers import AsyncDriver
from citadel_client.flow import Terms, exchange
from citadel_client.ndjson import BatchItem, pieces_async, replayable
from citadel_client.run_calls import Definition, SearchOptions, Validation, WorkflowPlan, completed
from citadel_client.run_flows import GROUP, Points
from citadel_contracts.runs import SearchHit, StoreResponse


class AsyncWorkflows:
    """Definitions: submit, plan, validate."""

    def __init__(self, driver: AsyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    async def submit(
        self,
        definition: Definition,
        *,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncRun:
        """Have a workflow run; returns as soon as it is recorded."""
        call = run_calls.submit(completed(definition, context, idempotency_key))
        accepted = await self._driver.run(exchange(call, self._terms))
        return AsyncRun(self._driver, accepted.run_id, self._terms)

    async def plan(self, definition: Definition, *, context: Mapping[str, Any] | None = None) -> WorkflowPlan:
        """Order, graph and expected calls, without running it."""
        return await self._driver.run(exchange(run_calls.plan(completed(definition, context)), self._terms))

    async def validate(self, definition: Definition, *, context: Mapping[str, Any] | None = None) -> Validation:
        """Everything that is wrong with a definition."""
        return await self._driver.run(run_flows.validated(completed(definition, context), self._terms))


class AsyncBatches:
    """Batches of embeddings: runs whose chunks fan out over the workers."""

    def __init__(self, driver: AsyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    async def submit(
        self,
        requests: Iterable[BatchItem] | AsyncIterable[BatchItem],
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncRun:
        """Have a batch embedded; it is streamed to the server, so memory does not grow with it."""
        call = run_calls.batch(
            lambda: pieces_async(requests),
            model=model,
            idempotency_key=idempotency_key,
            labels=labels,
            repeatable=replayable(requests),
        )
        accepted = await self._driver.run(exchange(call, self._terms))
        return AsyncRun(self._driver, accepted.run_id, self._terms)


class AsyncCollections:
    """Collections of vectors: texts are embedded on the way."""

    def __init__(self, driver: AsyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    async def store(
        self,
        name: str,
        points: Points,
        *,
        model: str | None = None,
        group: int = GROUP,
        progress: Callable[[int], None] | None = None,
    ) -> StoreResponse:
        """Store points, each with its vector or with a text; to do it again changes nothing."""
        return await self._driver.run(run_flows.stored(name, points, model, group, progress, self._terms))

    async def search(
        self,
        name: str,
        *,
        text: str | None = None,
        embedding: Sequence[float] | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[SearchHit]:
        """The points nearest to a text or a vector, best first."""
        return await self._driver.run(exchange(run_calls.search(name, text, embedding, **options), self._terms))
