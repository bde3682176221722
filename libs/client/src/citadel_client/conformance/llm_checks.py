"""Checks of an LLM server."""

import json
from collections.abc import Iterator
from typing import Any

from citadel_client.conformance.common_checks import NO_MODEL, at_once, authorization, grade_of, noted, refusals
from citadel_client.conformance.detection import Subject
from citadel_client.conformance.findings import Finding, counted
from citadel_client.conformance.protocols import Said
from citadel_client.conformance.server import Reply

FEW, SOME = 8, 64
"""Tokens of an answer, and of one in JSON."""
PROMPT = "Answer with one word: which colour has the sky?"
JSON_PROMPT = 'Answer in JSON with one member "ok", which is true or false: is water wet?'
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


class LlmChecks:
    """The checks of one server; each makes its own calls.

    Args:
        subject: The server.
        long_words: Words of the question that is too long; 0 leaves it out.
    """

    def __init__(self, subject: Subject, long_words: int) -> None:
        self._subject = subject
        self._server, self._wire = subject.server, subject.wire
        self._url = subject.wire.chat_url(subject.server.url)
        self._long_words = long_words

    def run(self) -> Iterator[Finding]:
        """Yield the findings; a server that does not answer a plain question ends them."""
        reply = self._ask("answer")
        said = self._wire.said(reply)
        if not reply.ok or not (said.text or said.reasoning):
            yield Finding(
                check="answer", result=reply.refused if not reply.ok else "empty", grade="bad", detail=reply.words
            )
            return
        yield Finding(check="answer", result="words", detail=f"finish reason {said.finish or 'missing'}")
        yield from self._accounts(said)
        yield from self._stream()
        yield self._json("JSON mode", None)
        yield self._json("JSON schema", SCHEMA)
        yield from self._too_long()
        yield at_once(lambda _: self._ask("at once"), lambda _, answer: answer.ok and bool(answer.text))
        yield from refusals(
            lambda: self._ask("unknown model", model=NO_MODEL),
            lambda: self._ask("bad input", messages="x"),
        )
        body = self._wire.question(self._subject.model, PROMPT, FEW)
        yield authorization(self._subject, lambda key: self._server.post(self._url, body, "authorization", key=key))

    def _ask(
        self, purpose: str, prompt: str = PROMPT, tokens: int = FEW, *, stream: bool = False, **more: Any
    ) -> Reply:
        body = self._wire.question(self._subject.model, prompt, tokens, stream=stream)
        return self._server.post(self._url, body | more, purpose)

    def _accounts(self, said: Said) -> Iterator[Finding]:
        yield noted("finish reason", "given" if said.finish else "missing", is_good=bool(said.finish))
        is_counted = counted(said.tokens)
        yield noted("usage", "counted" if is_counted else "missing", is_good=is_counted)
        is_short = (said.tokens if is_counted and said.tokens else len(said.text.split())) <= 2 * FEW
        yield noted("token limit", "honoured" if is_short else "ignored", is_good=is_short)
        thinks = "in the text" if "<think>" in said.text else said.reasoning or "none seen"
        yield noted("reasoning", thinks, is_good=thinks != "in the text")

    def _stream(self) -> Iterator[Finding]:
        reply = self._ask("stream", stream=True)
        said = self._wire.said(reply)
        if not reply.ok:
            yield noted("stream", reply.refused, is_good=False, detail=reply.words)
            return
        yield noted("stream", "in pieces" if said.is_stream else "in one piece", is_good=said.is_stream)
        if said.is_stream:
            yield noted("end of the stream", "marked" if said.is_ended else "not marked", is_good=said.is_ended)
            is_counted = counted(said.tokens)
            yield noted("usage in the stream", "counted" if is_counted else "missing", is_good=is_counted)

    def _json(self, check: str, schema: dict[str, Any] | None) -> Finding:
        reply = self._ask(check, JSON_PROMPT, SOME, **self._wire.json_fields(schema))
        said = self._wire.said(reply)
        if not reply.ok:
            return noted(check, reply.refused, is_good=False, detail=reply.words)
        is_honoured = _fits(said.text, schema) or (said.finish == "length" and said.text.lstrip().startswith("{"))
        return noted(check, "honoured" if is_honoured else "ignored", is_good=is_honoured)

    def _too_long(self) -> Iterator[Finding]:
        if not self._long_words:
            return
        reply = self._ask("too long", "word " * self._long_words)
        if reply.ok:
            yield noted("too long", "answered", detail=f"{self._long_words} words")
        else:
            is_clear = grade_of(reply) == "good"
            yield noted("too long", reply.refused, is_good=is_clear, detail=reply.words)


def _fits(text: str, schema: dict[str, Any] | None) -> bool:
    """Return whether a text is a JSON object, of the schema's form if there is one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if schema is None:
        return isinstance(value, dict)
    return isinstance(value, dict) and value.keys() == {"ok"} and isinstance(value["ok"], bool)
