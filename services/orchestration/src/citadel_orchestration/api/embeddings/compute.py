"""Has workers compute the vectors that the cache lacks, and waits for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from citadel_common.deadline import Deadline
from citadel_common.embeddings.requests import index_in
from citadel_common.errors import CitadelError, Overloaded, from_data
from citadel_contracts import GENERATE_EMBEDDING, Lane
from citadel_contracts.api import EmbeddingsRequest
from citadel_contracts.embeddings import GenerateEmbeddingResult, ItemError
from citadel_contracts.errors import ErrorData
from citadel_orchestration.api.embeddings.responses import Piece, fragment_of_base64
from citadel_orchestration.api.tasks.backlog import Backlog
from citadel_orchestration.api.tasks.publish import Publisher
from citadel_orchestration.api.tasks.results import Results


@dataclass(frozen=True)
class Work:
    """Texts to compute; `places[i]` are the indices in the request at which text i stands."""

    texts: list[str]
    places: list[list[int]]

    @classmethod
    def of(cls, texts: Sequence[str], missing: Sequence[int], *, distinct: bool) -> "Work":
        """The texts at the indices `missing`; `distinct` sends each only once."""
        groups: dict[str | int, list[int]] = {}
        for index in missing:
            groups.setdefault(texts[index] if distinct else index, []).append(index)
        return cls([texts[places[0]] for places in groups.values()], list(groups.values()))


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What came back: pieces by index in the request, tokens counted, texts that the worker had in the cache."""

    pieces: dict[int, Piece]
    tokens: int
    cache_hits: int


class Computation:
    """Sends one task per request and awaits its result.

    Args:
        publisher: Publishes tasks.
        results: Awaits them.
        backlog: Refuses when too many wait already.
        timeout: Seconds for one request.
        max_waiting: Requests waiting at once in this process.
    """

    def __init__(
        self, publisher: Publisher, results: Results, backlog: Backlog, *, timeout: float, max_waiting: int
    ) -> None:
        self._publisher = publisher
        self._results = results
        self._backlog = backlog
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, work: Work, request: EmbeddingsRequest, *, model: str) -> Computed:
        """Computes the texts of `work`.

        Raises:
            Overloaded: Too many requests or messages wait.
            CitadelError: The task failed, or some text has no vector.
        """
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} requests wait for results, the limit is {self._max_waiting}")
        self._waiting += 1
        try:
            await self._backlog.check(GENERATE_EMBEDDING.queue)
            result = await self._run_task(_arguments(work, request, model))
        except CitadelError as error:
            raise _in_terms_of_request(error, work, request) from None
        finally:
            self._waiting -= 1
        return _placed(result, work, request)

    async def _run_task(self, arguments: dict[str, Any]) -> GenerateEmbeddingResult:
        deadline = Deadline.after(self._timeout)
        expected = self._results.expect()
        try:
            await self._publisher.send(
                GENERATE_EMBEDDING, arguments, task_id=expected.task_id, lane=Lane.INTERACTIVE, deadline=deadline
            )
        except BaseException:
            self._results.cancel(expected)
            raise
        result: GenerateEmbeddingResult = await self._results.wait(expected, timeout=self._timeout)
        return result


def _arguments(work: Work, request: EmbeddingsRequest, model: str) -> dict[str, Any]:
    return {
        "text": work.texts,
        "model": model,
        "options": request.options,
        "cache_enabled": request.cache_enabled,
        "dimensions": request.dimensions,
        "input_type": request.input_type,
        "encoding_format": "base64",
    }


def _placed(result: GenerateEmbeddingResult, work: Work, request: EmbeddingsRequest) -> Computed:
    """The result by the indices of the request.

    Raises:
        CitadelError: Some text has no vector.
    """
    if result["errors"]:
        raise _item_error(result["errors"], work, request)
    if len(result["embeddings"]) != len(work.places):
        raise CitadelError("the worker answered with a different number of vectors than it was sent texts")
    pieces: dict[int, Piece] = {}
    cut = set(result["truncated"])
    for index, (vector, places) in enumerate(zip(result["embeddings"], work.places, strict=True)):
        if not isinstance(vector, str):
            raise CitadelError("the worker answered with a vector that is not in base64")
        piece = Piece(fragment_of_base64(vector, request.encoding_format), index in cut)
        pieces.update(dict.fromkeys(places, piece))
    return Computed(pieces=pieces, tokens=result["total_tokens"], cache_hits=result["cache_hits"])


def _in_terms_of_request(error: CitadelError, work: Work, request: EmbeddingsRequest) -> CitadelError:
    """Return the error about `input[j]`, as the client sent it, for the worker's about its own argument `text[i]`."""
    if error.field != "text":
        return error
    return error.about("input", _index(work, request, error.index or 0))


def _index(work: Work, request: EmbeddingsRequest, index: int) -> int | None:
    return index_in(request.input, work.places[index][0])


def _item_error(errors: Sequence[ItemError], work: Work, request: EmbeddingsRequest) -> CitadelError:
    """Return the error of the first bad text; a client can do nothing with vectors that have holes."""
    found = [ErrorData.model_validate(item) for item in errors]
    first, *others = sorted(found, key=lambda item: work.places[item.index or 0][0])
    more = f" (and {len(others)} more)" if others else ""
    error = from_data(first.model_copy(update={"message": first.message + more}))
    return error.about("input", _index(work, request, first.index or 0))
