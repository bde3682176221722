"""Decoders of a run's streams, whose bytes come in any pieces: events, and results of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from citadel_client.errors import ServiceUnavailable, facts_of
from citadel_client.vectors import Embeddings
from citadel_contracts.embeddings import ItemError
from citadel_contracts.errors import ErrorData
from citadel_contracts.runs import BatchResult, RunEvent

T = TypeVar("T")


class Decoder(ABC, Generic[T]):
    """Decoder of one stream of lines; remembers over all connections how far it has been read.

    Attributes:
        ended: Whether the whole stream has been read.
        headers: Headers of the next connection.
        query: Appended to the query of the next connection.
    """

    def __init__(self) -> None:
        self.ended = False
        self.headers: dict[str, str] = {}
        self.query = ""
        self.begin()

    def begin(self) -> None:
        """Begin a connection: forget an item that the last one cut off."""
        self._rest = b""

    def take(self, piece: bytes) -> Iterator[T]:
        """Yield the items that the bytes complete.

        Raises:
            CitadelApiError: The server says that it cannot go on.
            ValueError: The bytes are not items.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._line(line.removesuffix(b"\r"))

    def finish(self) -> Iterator[T]:
        """Yield the items left when the server ends the connection in good order."""
        return iter(())

    @abstractmethod
    def _line(self, line: bytes) -> Iterator[T]:
        """Yield the items that a line completes."""


class EventDecoder(Decoder[RunEvent]):
    """Decoder of a run's server-sent events; yields each event once.

    Args:
        after: Number of the last event that the caller has.
    """

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self._set_last(after)

    def begin(self) -> None:
        """Begin a connection: forget a half-read event."""
        super().begin()
        self._kind, self._data = "", list[bytes]()

    def _set_last(self, seq: int) -> None:
        self._last = seq
        self.headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seq)} if seq else {})

    def _line(self, line: bytes) -> Iterator[RunEvent]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._kind = value.decode()
        elif name == b"data":
            self._data.append(value)
        elif not line and (event := self._dispatched()) is not None:
            yield event

    def _dispatched(self) -> RunEvent | None:
        kind, body = self._kind, b"\n".join(self._data)
        self._kind, self._data = "", []
        if kind == "end":
            self.ended = True
        if not body or kind == "end":
            return None
        if kind == "error":
            found = ErrorData.model_validate_json(body)
            raise ServiceUnavailable(found.message, **facts_of(found))
        event = RunEvent.model_validate_json(body)
        if event.seq <= self._last:
            return None
        self._set_last(event.seq)
        return event


@dataclass(frozen=True, kw_only=True)
class BatchAnswer:
    """Result of one request of a batch.

    Attributes:
        index: Position of the request in the batch.
        request_id: The caller's id, if any.
        embeddings: Its vectors; `errors` says why texts have none.
    """

    index: int
    request_id: str | int | None
    embeddings: Embeddings

    @property
    def failed(self) -> bool:
        """Return whether one of its texts has no vector."""
        return bool(self.embeddings.errors)


class ResultDecoder(Decoder[BatchAnswer]):
    """Decoder of a batch's results, a line each; yields each result once.

    Args:
        after: Number of results that the caller has.
    """

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.headers = {"Accept": "application/x-ndjson"}
        self._set_next(after)

    def finish(self) -> Iterator[BatchAnswer]:
        """Yield the result of a last line without a line end."""
        self.ended = True
        return self._line(self._rest)

    def _set_next(self, index: int) -> None:
        self._next = index
        self.query = f"&after={index}" if index else ""

    def _line(self, line: bytes) -> Iterator[BatchAnswer]:
        if not line:
            return
        found = BatchResult.model_validate_json(line)
        if found.index < self._next:  # an older server ignores `after` and begins at the first
            return
        self._set_next(found.index + 1)
        embeddings = Embeddings(
            encoded=tuple(found.embeddings) or (None,) * bool(found.errors),
            model=found.model or "",
            cache_hits=found.cache_hits,
            truncated=tuple(found.truncated),
            errors=cast("tuple[ItemError, ...]", tuple(found.errors)),
        )
        yield BatchAnswer(index=found.index, request_id=found.request_id, embeddings=embeddings)
