"""One answer on its way to the caller: whole or as a stream, and as its mode spoils it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.doubles.base.answers import Answer
from tests.doubles.base.caller import Caller
from tests.doubles.base.refusals import HangUpError
from tests.doubles.llm.answers import Words, stream_begin, stream_end, stream_error, stream_piece, whole
from tests.doubles.llm.behaviour import CUT_SHORT
from tests.doubles.llm.requests import ChatRequest

BROKEN_OFF = frozenset({"disconnect", "stall", "endless"})
"""Modes in which an answer in one piece stays incomplete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The answer to a question.

    Attributes:
        request: The question.
        words: The text.
        mode: Its mode.
        caller: Who asked.
        word_s: Seconds that each word takes.
        sent: Called when the answer is complete.
    """

    request: ChatRequest
    words: Words
    mode: str
    caller: Caller
    word_s: float
    sent: Callable[[], None]

    def answer(self) -> Answer:
        """Return the answer in the way that the question asks for."""
        if self.request.stream and self.mode != "no_stream":
            content_type = b"text/event-stream; charset=utf-8" if self.request.openai else b"application/x-ndjson"
            return Answer(content_type=content_type, pieces=self._stream(), sent=self.sent)
        body = whole(self.request, self.words)
        if self.mode == "stream_error":
            body = stream_error(self.request).removeprefix(b"data: ")
        if self.mode in {"garbage_json", "truncated"}:
            body = body[: len(body) // 2]
        return Answer(body, pieces=self._half(body) if self.mode in BROKEN_OFF else None, sent=self.sent)

    async def _half(self, body: bytes) -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        await self._break_off()

    async def _stream(self) -> AsyncIterator[bytes]:
        for piece in stream_begin(self.request) if self.mode != "garbage_json" else ():
            yield piece
        for piece in self._words():
            await self.caller.sleep(self.word_s)
            yield piece
        if self.mode == "stream_error":
            yield stream_error(self.request)
        while self.mode == "endless":
            await self.caller.sleep(0.0001)
            yield stream_piece(self.request, "more " * 200)
        if self.mode in BROKEN_OFF:
            await self._break_off()
        if self.mode not in {"garbage_json", "truncated", "stream_error"}:
            for piece in stream_end(self.request, self.words, done=self.mode != "no_done"):
                yield piece

    def _words(self) -> list[bytes]:
        pieces = [stream_piece(self.request, text) for text in self.words.pieces]
        if self.mode in CUT_SHORT:
            pieces = pieces[: max(1, len(pieces) // 2)]
        if self.mode == "garbage_json":
            pieces = [pieces[0][: len(pieces[0]) // 2] + b"\n\n"]
        if self.mode == "comments" and self.request.openai:
            pieces = [part for piece in pieces for part in (b": PROCESSING\n\n", b"event: message\r\n", piece)]
        return pieces

    async def _break_off(self) -> None:
        if self.mode == "disconnect":
            raise HangUpError
        await self.caller.hang()
