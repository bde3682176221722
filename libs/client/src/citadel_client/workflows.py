"""Workflows, batches and collections, blocking."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

from citadel_client import run_calls, run_flows
from citadel_client.drivers import SyncDriver
from citadel_client.flow import Terms, exchange
from citadel_client.ndjson import BatchItem, pieces, replayable
from citadel_client.run_calls import Definition, SearchOptions, Validation, WorkflowPlan, completed
from citadel_client.run_flows import GROUP, Points
from citadel_client.runs import Run
from citadel_contracts.runs import SearchHit, StoreResponse


class Workflows:
    """Definitions: submit, plan, validate."""

    def __init__(self, driver: SyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    def submit(
        self,
        definition: Definition,
        *,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Have a workflow run; returns as soon as it is recorded.

        Args:
            definition: Its definition.
            context: Goes over the definition's own context.
            idempotency_key: The same key gives the same run; without one, each submission is its own.

        Raises:
            InvalidRequest: The definition is wrong; `errors` has every problem with its JSON pointer.
            Conflict: The key was used for something else.
        """
        call = run_calls.submit(completed(definition, context, idempotency_key))
        accepted = self._driver.run(exchange(call, self._terms))
        return Run(self._driver, accepted.run_id, self._terms)

    def plan(self, definition: Definition, *, context: Mapping[str, Any] | None = None) -> WorkflowPlan:
        """Order, graph and expected calls, without running it.

        Raises:
            InvalidRequest: The definition is wrong; `errors` has every problem with its JSON pointer.
        """
        return self._driver.run(exchange(run_calls.plan(completed(definition, context)), self._terms))

    def validate(self, definition: Definition, *, context: Mapping[str, Any] | None = None) -> Validation:
        """Everything that is wrong with a definition."""
        return self._driver.run(run_flows.validated(completed(definition, context), self._terms))


class Batches:
    """Batches of embeddings: runs whose chunks fan out over the workers."""

    def __init__(self, driver: SyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    def submit(
        self,
        requests: Iterable[BatchItem],
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Run:
        """Have a batch embedded; it is streamed to the server, so memory does not grow with it.

        Args:
            requests: Texts, or fields of `BatchRequest`; one that can be read anew (a list) is sent again after a drop.
            model: Model of requests that name none.
            idempotency_key: The same key gives the same run.
            labels: Names and values by which the run is found.

        Raises:
            InvalidRequest: A request is not valid; the message names it, and nothing is kept.
        """
        call = run_calls.batch(
            lambda: pieces(requests),
            model=model,
            idempotency_key=idempotency_key,
            labels=labels,
            repeatable=replayable(requests),
        )
        accepted = self._driver.run(exchange(call, self._terms))
        return Run(self._driver, accepted.run_id, self._terms)


class Collections:
    """Collections of vectors: texts are embedded on the way."""

    def __init__(self, driver: SyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    def store(
        self,
        name: str,
        points: Points,
        *,
        model: str | None = None,
        group: int = GROUP,
        progress: Callable[[int], None] | None = None,
    ) -> StoreResponse:
        """Store points, each with its vector or with a text; to do it again changes nothing.

        Args:
            name: The collection; created where it is missing.
            points: `StorePoint` or its fields, read as they are needed.
            model: Model of the texts' vectors.
            group: Points per request, at most 1000.
            progress: Told after each group how many are stored.

        Raises:
            CitadelApiError: A group is refused; those before it are stored.
        """
        return self._driver.run(run_flows.stored(name, points, model, group, progress, self._terms))

    def search(
        self,
        name: str,
        *,
        text: str | None = None,
        embedding: Sequence[float] | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[SearchHit]:
        """The points nearest to a text or a vector, best first.

        Raises:
            NotFound: There is no such collection.
        """
        return self._driver.run(exchange(run_calls.search(name, text, embedding, **options), self._terms))
