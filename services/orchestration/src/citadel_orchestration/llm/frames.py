"""Answers of LLM servers cut into JSON values: server-sent events, JSON lines, or one JSON document.

What a server sends is told by its form, not by its content type or by what it was asked: servers and proxies mix them.
Sources: server-sent events as in the HTML standard; llama.cpp's server (errors as a field `error:`); Ollama's lines.
"""

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx
import orjson

from citadel_common.errors import BadLlmOutput

_END = b"[DONE]"
_FIELD = re.compile(rb"(event|id|retry)(?::[ ]?(.*))?", re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>\s*(.{1,200}?)\s*</title", re.IGNORECASE | re.DOTALL)
_QUOTE = 200
_LINE = 64
"""Bytes that a line takes in memory beside its own."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One value of an answer.

    Attributes:
        content: Its members; None where what was sent is not a JSON object.
        data: Its bytes.
        is_error: Whether the event says itself that it is an error.
    """

    content: Mapping[str, Any] | None
    data: bytes = b""
    is_error: bool = False

    @property
    def is_end(self) -> bool:
        """True for the mark at the end of a stream."""
        return self.data == _END


class FrameReader:
    """Reads the frames of one answer, in bounded memory.

    Args:
        where: The endpoint, for messages.
        limit: Bytes of one line or document at most.

    Attributes:
        stray: The beginning of what was no frame: a proxy's page, or plain text.
        count: Frames so far.
    """

    def __init__(self, where: str, limit: int) -> None:
        self._where = where
        self._limit = limit
        self._pending: list[bytes] = []
        self._document: list[bytes] = []
        self._event = b""
        self._size = 0
        self.stray = b""
        self.count = 0

    async def frames(self, response: httpx.Response) -> AsyncGenerator[Frame]:
        """Yield the frames of a response.

        Raises:
            BadLlmOutput: A line or document is longer than the limit.
        """
        first = True
        async with contextlib.aclosing(self._lines(response)) as lines:
            async for line in lines:
                for frame in self._take(line.removeprefix(_BOM) if first else line):
                    self.count += 1
                    yield frame
                first = False
        for frame in [*self._dispatch(), *self._whole()]:
            self.count += 1
            yield frame

    async def _lines(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        """Yield lines as bytes: text would be split at characters that JSON may hold."""
        rest = bytearray()
        async with contextlib.aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
            async for chunk in chunks:
                rest += chunk.replace(b"\r", b"\n")
                *whole, last = rest.split(b"\n") if b"\n" in chunk or b"\r" in chunk else [rest]
                for line in whole:
                    yield bytes(line)
                rest = last
                self._check(len(rest))
        if rest:
            yield bytes(rest)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise BadLlmOutput(f"{self._where} sent a line of more than {self._limit} bytes")

    def _take(self, line: bytes) -> Iterator[Frame]:
        """Yield the frames that a line completes."""
        line = line.strip()
        if self._document:
            self._keep(self._document, line)
        elif not line:
            yield from self._dispatch()
        elif line.startswith(b"data:"):
            yield from self._take_data(line[5:].strip())
        elif line.startswith((b"{", b"[")) and not self._pending:
            yield from self._take_json(line)
        elif line.startswith(b"error:"):
            yield Frame(content=_object(line[6:]), data=line[6:].strip(), is_error=True)
        elif field := _FIELD.fullmatch(line):
            self._event = field[2] or b"" if field[1] == b"event" else self._event
        elif not line.startswith(b":"):
            self.stray = (self.stray + b"\n" + line)[: _QUOTE * 4]

    def _take_data(self, data: bytes) -> Iterator[Frame]:
        """Yield data that are complete in one line at once; keep a line of several."""
        content = None if self._pending else _object(data)
        if content is not None or data == _END:
            if self._pending:
                yield from self._dispatch()
            yield self._frame(content, data)
        else:
            self._keep(self._pending, data)

    def _take_json(self, line: bytes) -> Iterator[Frame]:
        content = _object(line)
        if content is None:
            self._keep(self._document, line)
        else:
            yield Frame(content=content, data=line)

    def _keep(self, lines: list[bytes], line: bytes) -> None:
        lines.append(line)
        self._size += len(line) + _LINE
        self._check(self._size)

    def _dispatch(self) -> Iterator[Frame]:
        """Yield the event that a blank line ends."""
        pending, self._pending, self._size = self._pending, [], 0
        if pending:
            data = b"\n".join(pending)
            content = _object(data)
            whole = content is not None or not all(_object(line) for line in pending)
            yield from [self._frame(content, data)] if whole else [self._frame(_object(line), line) for line in pending]
        elif self._event == b"error":
            yield self._frame(None, b"")
        self._event = b""

    def _frame(self, content: Mapping[str, Any] | None, data: bytes) -> Frame:
        event, self._event = self._event, b""
        return Frame(content=content, data=data, is_error=event == b"error")

    def _whole(self) -> Iterator[Frame]:
        """Yield the document that ends with the body."""
        if self._document:
            data = b"\n".join(self._document)
            yield Frame(content=_object(data), data=data)


def _object(data: bytes) -> Mapping[str, Any] | None:
    """Return a JSON object, alone or as the only item of a list; None for anything else.

    Half of a surrogate pair, NaN, and bytes that are not UTF-8 are let through, for what they stand in may be of no use
    here: the texts are mended later.
    """
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            content = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    return content if isinstance(content, dict) else None


def described(body: bytes) -> str:
    """Return the beginning of a body that is not JSON, or the title of a page."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        title = _TITLE.search(text)
        return f"an HTML page ({title[1]})" if title else "an HTML page"
    return repr(text[:_QUOTE]) if text else "nothing"


async def drain(frames: AsyncIterator[Frame]) -> None:
    """Read what follows the last frame."""
    with contextlib.suppress(httpx.HTTPError, BadLlmOutput):
        async for _ in frames:
            return
