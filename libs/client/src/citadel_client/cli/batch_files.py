"""Files of a batch: requests, a line each, and their records as NDJSON, in the same order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import orjson

from citadel_client import Embedded
from citadel_client.cli.options import Encoding
from citadel_contracts import json_text

RequestId = str | int
Embed = Callable[[Iterator[str]], Iterator[Embedded]]
FIELDS = frozenset({"text", "request_id"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line of a file of requests.

    Attributes:
        request_id: The caller's id, else the line's number.
        text: Text to embed.
        problem: Why the request cannot be sent; None if it can.
    """

    request_id: RequestId
    text: str = ""
    problem: str | None = None


def read(lines: Iterable[str]) -> Iterator[Request]:
    """Yield the requests of a file: NDJSON if its first line is a JSON object, else a text per line."""
    stripped = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    filled = ((number, line) for number, line in stripped if line)
    first = next(filled, None)
    if first is None:
        return
    is_json = first[1].startswith("{") and not isinstance(_json_object(first[1]), str)
    for number, line in chain([first], filled):
        yield _from_json(number, line) if is_json else Request(request_id=number, text=line)


def _from_json(number: int, line: str) -> Request:
    found = _json_object(line)
    if isinstance(found, str):
        return Request(request_id=number, problem=found)
    given = found.get("request_id")
    request_id = number if given is None else given
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        return Request(request_id=number, problem="request_id must be a string or an integer")
    if unknown := found.keys() - FIELDS:
        return Request(request_id=request_id, problem=f"unknown fields: {', '.join(sorted(unknown))}")
    text = found.get("text")
    if not isinstance(text, str):
        return Request(request_id=request_id, problem="text must be a string")
    return Request(request_id=request_id, text=text)


def _json_object(line: str) -> dict[str, object] | str:
    """Return the object that a line holds, or the problem of a line that holds none."""
    try:
        found = json_text.loads(line.encode())
    except json_text.NotJson:
        return "not a JSON object"
    except json_text.UnusableValue as error:
        return str(error)
    return found if isinstance(found, dict) else "not a JSON object"


class RecordStream:
    """Pairs requests with their results while both stream; holds only the requests that have no result yet."""

    def __init__(self, requests: Iterable[Request], encoding: Encoding) -> None:
        self._requests = requests
        self._encoding = encoding
        self._pending: deque[Request] = deque()
        self.written = 0
        self.failed = 0

    def records(self, embed: Embed) -> Iterator[bytes]:
        """Yield the records in the order of the requests."""
        for item in embed(self._texts()):
            yield from self._unfit()
            yield self._record(self._pending.popleft(), item)
        yield from self._unfit()

    def _texts(self) -> Iterator[str]:
        for request in self._requests:
            self._pending.append(request)
            if request.problem is None:
                yield request.text

    def _unfit(self) -> Iterator[bytes]:
        """Yield records of the requests at the front that were never sent."""
        while self._pending and (problem := self._pending[0].problem) is not None:
            yield self._line(self._pending.popleft(), error={"code": "invalid_input", "message": problem})

    def _record(self, request: Request, item: Embedded) -> bytes:
        if item.error is not None:
            return self._line(request, error={"code": item.error.code, "message": item.error.message})
        as_sent = self._encoding == "base64" and isinstance(item.encoded, str)
        vector: Any = item.encoded if as_sent else item.array
        return self._line(request, embedding=vector, **({"truncated": True} if item.truncated else {}))

    def _line(self, request: Request, **fields: Any) -> bytes:
        self.written += 1
        self.failed += "error" in fields
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps({"request_id": request.request_id, **fields}, option=options)


def recorded_ids(path: Path) -> frozenset[RequestId]:
    """Return the ids of the records in a file; a last line that was cut off is removed.

    Raises:
        ValueError: The file has other lines.
    """
    if not path.exists():
        return frozenset()
    with path.open("r+b") as file:
        _remove_torn_line(file)
        file.seek(0)
        return frozenset(map(_id_of, file))


def _remove_torn_line(file: IO[bytes]) -> None:
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(end)
            return
        end += len(line)


def _id_of(line: bytes) -> RequestId:
    try:
        request_id = orjson.loads(line)["request_id"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError("it has lines that are not records of a batch") from error
    if not isinstance(request_id, str | int):
        raise ValueError("it has records without a request_id")  # noqa: TRY004  (the file's content is at fault)
    return request_id
