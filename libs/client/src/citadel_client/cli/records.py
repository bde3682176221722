"""The output of a batch: an NDJSON record per request, in order; what is there can be continued."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from citadel_client.cli.requests import Request, RequestId
from citadel_client.vectors import Embedded

Encoding = Literal["float", "base64"]
Embed = Callable[[Iterator[str]], Iterator[Embedded]]


class Ledger:
    """Keeps requests and vectors together while they stream; holds only what is under way."""

    def __init__(self, requests: Iterable[Request], encoding: Encoding) -> None:
        self._requests = requests
        self._encoding = encoding
        self._pending: deque[Request] = deque()
        self.written = 0
        self.failed = 0

    def records(self, embed: Embed) -> Iterator[bytes]:
        """The records, in the order of the requests."""
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
        """Records of the requests at the front that were never sent."""
        while self._pending and (problem := self._pending[0].problem) is not None:
            yield self._line(self._pending.popleft(), error={"code": "invalid_input", "message": problem})

    def _record(self, request: Request, item: Embedded) -> bytes:
        if item.error is not None:
            return self._line(request, error={"code": item.error.code, "message": item.error.message})
        as_sent = self._encoding == "base64" and isinstance(item.encoded, str)
        vector: Any = item.encoded if as_sent else item.array
        return self._line(request, embedding=vector, **({"truncated": True} if item.truncated else {}))

    def _line(self, request: Request, **facts: Any) -> bytes:
        self.written += 1
        self.failed += "error" in facts
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps({"request_id": request.request_id, **facts}, option=options)


def continued(path: Path) -> frozenset[RequestId]:
    """Ids that the file has; a last line that was cut off is removed."""
    found: set[RequestId] = set()
    if not path.exists():
        return frozenset()
    with path.open("r+b") as file:
        _cut_torn_line(file)
        file.seek(0)
        for line in file:
            found.add(_id_of(line))
    return frozenset(found)


def _cut_torn_line(file: IO[bytes]) -> None:
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
        raise ValueError("it has lines that are no records of a batch") from error
    if not isinstance(request_id, str | int):
        raise ValueError("it has records without a request_id")  # noqa: TRY004  (the file's content is at fault)
    return request_id
