"""Answers of LLM servers: the text that grows from their pieces, and what its end means."""

from collections.abc import Callable

from citadel_common.errors import BadLlmOutput, LlmRefused, LlmUnavailable
from citadel_common.text import storable
from citadel_orchestration.llm import reasoning
from citadel_orchestration.llm.question import Piece, Usage

_ESCAPE = 6
_OVERHEAD = 64 * 1024
_NAME_LIMIT = 200
_MOST_TOOLS = 20
_KINDS = {
    "stop": "stop eos eos_token stop_sequence stop_token end_turn complete completed end normal",
    "length": "length max_tokens model_length max_output_tokens token_limit model_context_window_exceeded",
    "content_filter": "content_filter safety refusal recitation prohibited_content blocklist sensitive",
    "error": "error abort aborted cancelled network_error insufficient_system_resource malformed_function_call",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}


def finish_kind(reason: str) -> str:
    """Return `stop`, `length`, `content_filter` or `error` for the words that servers use; others stay as they are."""
    return _KIND_OF.get(reason.lower(), name(reason))


def name(text: str) -> str:
    """Return a name from outside (a model, a tool, a reason) in a form and length that can be stored."""
    return storable(text[:_NAME_LIMIT])


class Transcript:
    """The pieces of an answer so far.

    Args:
        max_bytes: Bytes of text and reasoning at most.

    Attributes:
        model: The model; None until a piece names it.
        usage: The latest token counts.
        finish_reason: Why the model stopped; None until it has stopped.
        tool_calls: Names of the tools that the model wants to be called.
        is_whole: Whether a piece was the whole answer.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._size = 0
        self.model: str | None = None
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.tool_calls: tuple[str, ...] = ()
        self.is_whole = False

    @property
    def text(self) -> str:
        """The text of all pieces, reasoning included that stands in it."""
        return storable("".join(self._texts))

    @property
    def answer(self) -> tuple[str, str]:
        """The reasoning and the answer."""
        within, text = reasoning.split(self.text)
        before = storable("".join(self._reasoning))
        return "\n".join(part for part in (before, within) if part), text

    @property
    def is_empty(self) -> bool:
        """True if no piece had anything of an answer, not even its end."""
        return not (self._size or self.tool_calls or self.finish_reason)

    @property
    def raw_limit(self) -> int:
        """Most bytes of a JSON value with that much text: an escaped character has six."""
        return _ESCAPE * self._max_bytes + _OVERHEAD

    def add(self, piece: Piece) -> bool:
        """Append a piece; return True if it is the last.

        Raises:
            BadLlmOutput: The text is longer than its limit.
        """
        if piece.is_whole and piece.text:
            self._texts.clear()  # some servers end a stream with the whole answer
        for grown, text in (
            (self._texts, piece.text),
            (self._reasoning, piece.reasoning),
            (self._refusal, piece.refusal),
        ):
            if text:
                grown.append(text)
                self._size += len(text.encode("utf-8", "replace"))
        if self._size > self._max_bytes:
            raise BadLlmOutput(f"the LLM's answer is longer than {self._max_bytes} bytes; ask for fewer tokens")
        self.model = piece.model or self.model
        self.usage = piece.usage or self.usage
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.tool_calls = (self.tool_calls + piece.tool_calls)[:_MOST_TOOLS]
        self.is_whole = self.is_whole or piece.is_whole
        return piece.last

    def check_end(self, where: str, *, hide: Callable[[str], str] = str) -> None:
        """Check that the answer is one.

        Args:
            where: The endpoint, for messages.
            hide: Takes secrets out of a text.

        Raises:
            LlmRefused: The model declined, or a filter stopped it.
            LlmUnavailable: The server stopped it.
            BadLlmOutput: There was no answer.
        """
        kind = finish_kind(self.finish_reason or "stop")
        if self._refusal:
            raise LlmRefused(f"the model declines: {hide(''.join(self._refusal))[:300]}")
        if kind == "content_filter":
            raise LlmRefused(f"{where}: a content filter stopped the answer ({name(self.finish_reason or '')})")
        if kind == "error":
            raise LlmUnavailable(f"{where} stopped its answer ({name(self.finish_reason or '')})")
        if self.is_empty:
            raise BadLlmOutput(f"{where} sent no answer: no choice, no text and no reason")
