"""Cutting a text that is too long for a server that does not cut: the longest beginning that it takes."""

import time
from dataclasses import replace

from citadel_embeddings.backends.base import Backend, EmbedCall, EmbedReply, TextTooLong

CALLS = 10
"""Most calls for one text."""
GOOD_SHARE = 0.9
"""Share of the model's context, or of the shortest text that was refused, with which the search is content."""
MARGIN = 0.98
"""Share of the estimated length that is tried: tokens are not spread evenly."""


async def embed_beginning(
    backend: Backend, url: str, call: EmbedCall, refused: TextTooLong, *, timeout: float
) -> EmbedReply:
    """Return the vector of the longest beginning of a text that the server takes.

    The server's own numbers guide the search if its refusals have any; otherwise the length is bisected.

    Args:
        backend: The protocol.
        url: The server.
        call: The call with one text, which was refused.
        refused: The refusal.
        timeout: Seconds for all calls together.

    Raises:
        TextTooLong: The server took no beginning that was tried.
        CitadelError: Any other error of the backend.
    """
    end = time.monotonic() + timeout
    search = _Search(len(call.texts[0]), refused)
    for _ in range(CALLS):
        length = search.next_length()
        if length is None:
            break
        shorter = replace(call, texts=[call.texts[0][:length]])
        try:
            reply = await backend.embed(url, shorter, timeout=max(0.001, end - time.monotonic()))
        except TextTooLong as error:
            search.refused(length, error)
        else:
            search.accepted(length, reply)
    if search.best is None:
        raise refused
    return replace(search.best, truncated=[True])


class _Search:
    """Bounds of the length in characters, `low` accepted and `high` refused, and what the server said of tokens."""

    def __init__(self, length: int, refused: TextTooLong) -> None:
        self.best: EmbedReply | None = None
        self._low, self._high = 0, length
        self._limit: int | None = None
        self._density: float | None = None
        self.refused(length, refused)

    def refused(self, length: int, error: TextTooLong) -> None:
        self._high = length
        self._limit = error.limit or self._limit
        self._density = error.tokens / length if error.tokens else self._density

    def accepted(self, length: int, reply: EmbedReply) -> None:
        self._low, self.best = length, reply
        self._density = reply.tokens / length if reply.tokens else self._density

    def next_length(self) -> int | None:
        """Return the length to try; None if the best one is good enough or there is none left."""
        if self._high - self._low <= 1 or self._is_good():
            return None
        middle = (self._low + self._high) // 2
        if self._limit is None or not self._density:
            return middle
        guess = int(self._limit / self._density * MARGIN)
        return guess if self._low < guess < self._high else middle

    def _is_good(self) -> bool:
        if self.best is None:
            return False
        tokens_used = self._limit is not None and self.best.tokens >= GOOD_SHARE * self._limit
        return tokens_used or self._low >= GOOD_SHARE * self._high
