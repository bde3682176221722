"""An answer as it grows, and the lines of a stream it comes in."""

import contextlib
from collections.abc import AsyncGenerator
from typing import cast

import httpx

from citadel_common.errors import BadLlmOutput
from citadel_orchestration.llm.question import Piece, Usage

_ESCAPE = 6
_OVERHEAD = 64 * 1024


class Transcript:
    """The pieces so far.

    Args:
        max_bytes: Bytes of text at most.

    Attributes:
        model: The model, once a piece said it.
        usage: The latest counts.
        finish_reason: Why the model stopped; None before it did.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._texts: list[str] = []
        self._size = 0
        self.model: str | None = None
        self.usage = Usage()
        self.finish_reason: str | None = None

    @property
    def text(self) -> str:
        """All words."""
        return "".join(self._texts)

    @property
    def raw_limit(self) -> int:
        """Bytes that a single JSON value with that much text may have: a character's escape has six."""
        return _ESCAPE * self._max_bytes + _OVERHEAD

    def add(self, piece: Piece) -> bool:
        """Appends a piece; True when nothing comes after it.

        Raises:
            BadLlmOutput: The text grows beyond its limit.
        """
        if piece.text:
            self._texts.append(piece.text)
            self._size += len(piece.text.encode("utf-8", "replace"))
        if self._size > self._max_bytes:
            raise BadLlmOutput(f"the LLM's answer is longer than {self._max_bytes} bytes; ask for fewer tokens")
        self.model = piece.model or self.model
        self.usage = piece.usage or self.usage
        self.finish_reason = piece.finish_reason or self.finish_reason
        return piece.last


async def lines(response: httpx.Response, limit: int) -> AsyncGenerator[bytes]:
    """The lines of a body, as bytes: JSON may hold signs that end a line of text but not one of a protocol.

    Raises:
        BadLlmOutput: A line is longer than `limit` bytes.
    """
    rest = bytearray()
    async with contextlib.aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
        async for chunk in chunks:
            rest += chunk
            *whole, last = rest.split(b"\n") if b"\n" in chunk else [rest]
            for line in whole:
                yield bytes(line)
            rest = last
            if len(rest) > limit:
                raise BadLlmOutput(f"the LLM server sent a line of more than {limit} bytes")
    if rest:
        yield bytes(rest)
