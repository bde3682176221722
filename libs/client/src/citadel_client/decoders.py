"""Decoders of a run's streams, whose bytes come in any pieces: events, and results of a batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from citadel_client.errors import ServiceUnavailable, facts_of
from citadel_client.vectors import Embeddings
from citadel_contracts.embeddings import ItemError
from citadel_contracts.errors import ErrorData
from citadel_contracts.runs import BatchResult, RunEvent

T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """Decoder of one stream; remembers how far it has been read."""

    ended: bool

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for what has not been read."""

    def query(self) -> str:
        """Return what to add to the query to ask for what has not been read."""

    def begin(self) -> None:
        """Begin a connection: forget an item that the last one cut off."""

    def take(self, piece: bytes) -> Iterator[T_co]:
        """Yield the items that the bytes complete."""

    def finish(self) -> Iterator[T_co]:
        """Yield the items left when the server ends the connection in good order."""


class Lines:
    """Splitter of pieces into whole lines; `rest` is the line that has no end yet."""

    def __init__(self) -> None:
        self.rest = b""

    def take(self, piece: bytes) -> list[bytes]:
        """Return the lines that the bytes complete, without their line ends."""
        *lines, self.rest = (self.rest + piece).split(b"\n")
        return [line.removesuffix(b"\r") for line in lines]


class EventDecoder:
    """Decoder of a run's server-sent events; yields each event once, over any number of connections.

    Args:
        after: Number of the last event that the caller has.
    """

    def __init__(self, after: int = 0) -> None:
        self.ended = False
        self._last = after
        self.begin()

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for the events after the last one."""
        return {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(self._last)} if self._last else {})

    def query(self) -> str:
        """Return nothing: the headers say where to go on."""
        return ""

    def begin(self) -> None:
        """Begin a connection: forget a half-read event."""
        self._lines = Lines()
        self._kind, self._data = "", list[bytes]()

    def take(self, piece: bytes) -> Iterator[RunEvent]:
        """Yield the events that the bytes complete.

        Raises:
            ServiceUnavailable: The server says that it cannot go on.
            ValueError: The bytes are not events of a run.
        """
        for line in self._lines.take(piece):
            if line:
                self._field(line)
            elif (event := self._dispatched()) is not None:
                yield event

    def finish(self) -> Iterator[RunEvent]:
        """Yield nothing: an event without its end does not count."""
        return iter(())

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._kind = value.decode()
        elif name == b"data":
            self._data.append(value)

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
        self._last = event.seq
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
        """Whether one of its texts has no vector."""
        return bool(self.embeddings.errors)


class ResultDecoder:
    """Decoder of a batch's results; yields each result once, over any number of connections.

    Args:
        after: Number of results that the caller has.
    """

    def __init__(self, after: int = 0) -> None:
        self.ended = False
        self._next = after
        self.begin()

    def headers(self) -> dict[str, str]:
        """Return the header that asks for NDJSON."""
        return {"Accept": "application/x-ndjson"}

    def query(self) -> str:
        """Return the parameter that asks for the results after the last one."""
        return f"&after={self._next}" if self._next else ""

    def begin(self) -> None:
        """Begin a connection: forget a half-read line."""
        self._lines = Lines()

    def take(self, piece: bytes) -> Iterator[BatchAnswer]:
        """Yield the results that the bytes complete.

        Raises:
            ValueError: The bytes are not results.
        """
        for line in self._lines.take(piece):
            if line:
                yield from self._result(line)

    def finish(self) -> Iterator[BatchAnswer]:
        """Yield the result of a last line without a line end."""
        self.ended = True
        if self._lines.rest:
            yield from self._result(self._lines.rest)

    def _result(self, line: bytes) -> Iterator[BatchAnswer]:
        found = BatchResult.model_validate_json(line)
        if found.index < self._next:  # an older server ignores `after` and begins at the first
            return
        self._next = found.index + 1
        embeddings = Embeddings(
            encoded=tuple(found.embeddings) or (None,) * bool(found.errors),
            model=found.model or "",
            cache_hits=found.cache_hits,
            truncated=tuple(found.truncated),
            errors=cast("tuple[ItemError, ...]", tuple(found.errors)),
        )
        yield BatchAnswer(index=found.index, request_id=found.request_id, embeddings=embeddings)
