"""The LLM double: both chat protocols, and the side routes that health checks use."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import orjson

from tests.doubles.base.answers import Answer, json_answer, llama_error, read_json
from tests.doubles.base.application import Double
from tests.doubles.base.caller import Caller
from tests.doubles.base.refusals import HangUpError, Refusal, RefusalError, refuse
from tests.doubles.llm.answers import CREATED, Words
from tests.doubles.llm.behaviour import FRUITFUL, LlmBehaviour
from tests.doubles.llm.recording import LlmRecording
from tests.doubles.llm.replies import Reply
from tests.doubles.llm.requests import ChatRequest, healthy_text, prompt_tokens, read_chat
from tests.doubles.llm.settings import LlmSettings

OPENAI, OLLAMA = "/v1/chat/completions", "/api/chat"
TEMPORARY_REDIRECT = 307
BAD_JSON = 'Sure! Here it is: {"answer": '


def raw(wanted: Mapping[str, Any]) -> Answer:
    """Return an answer as a script has it, such as no server of these protocols should send.

    Args:
        wanted: `body` (bytes as Latin-1, or JSON), and where needed `status`, `headers`, `content_type`.
    """
    body = wanted.get("body", "")
    return Answer(
        body.encode("latin-1") if isinstance(body, str) else orjson.dumps(body),
        status=wanted.get("status", 200),
        content_type=wanted.get("content_type", "application/json").encode(),
        headers=tuple((name.encode(), value.encode()) for name, value in wanted.get("headers", {}).items()),
    )


class LlmDouble(Double):
    """An LLM server; `/_double/script` takes its next answers.

    A scripted answer is a text, an object with `text`, `finish_reason` or `mode`, or `{"raw": …}` (see `raw`).
    """

    BEHAVIOUR = LlmBehaviour
    MAIN: ClassVar = frozenset({OPENAI, OLLAMA})

    def __init__(self, settings: LlmSettings | None = None) -> None:
        self.settings = settings or LlmSettings()
        super().__init__(LlmRecording(self.settings.track_prompts, self.settings.journal))
        self._script: deque[Any] = deque()
        self._permits = asyncio.Semaphore(0)
        self.routes |= {
            ("POST", OPENAI): self._chat,
            ("POST", OLLAMA): self._chat,
            ("GET", "/"): self._side,
            ("GET", "/api/version"): self._side,
            ("GET", "/api/tags"): self._side,
            ("GET", "/v1/models"): self._side,
            ("POST", "/_double/script"): self._take_script,
            ("POST", "/_double/release"): self._release,
        }

    def stats(self, caller: Caller) -> dict[str, Any]:
        """Return the record of requests, and how many scripted answers are left."""
        return super().stats(caller) | {"scripted": len(self._script)}

    def reset(self) -> None:
        """Become healthy, count from 0 and forget the script."""
        super().reset()
        self._script.clear()
        self._permits = asyncio.Semaphore(0)

    def error(self, refusal: Refusal, caller: Caller) -> Answer:
        """Return an error, or the redirect to the caller's own path."""
        if refusal.status == TEMPORARY_REDIRECT:
            return Answer(status=refusal.status, headers=((b"location", caller.path.encode()),))
        if self.settings.any_model == "yes" and caller.path.startswith("/v1/") and not refusal.html:
            return llama_error(refusal)
        return super().error(refusal, caller)

    async def route(self, caller: Caller) -> Answer:
        """Return the answer of the request's route; llama-server has words of its own for an unknown one."""
        if caller.path.startswith("/v1/") and not any(path == caller.path for _, path in self.routes):
            return json_answer({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404)
        return await super().route(caller)

    async def _chat(self, caller: Caller) -> Answer:
        key = self._authorise(caller)
        any_model = self.settings.any_model == "yes"
        body, models = await caller.body(), () if any_model else self.settings.models
        request = read_chat(body, models, openai=caller.path == OPENAI)
        if any_model:
            request = replace(request, model=self.settings.models[0])
        self._check_context(request)
        self.recording.count_received(request)
        scripted = self._next_scripted()
        if "raw" in scripted:
            return raw(scripted["raw"])
        mode = scripted.get("mode") or self._next_mode(request)
        await caller.sleep(self.switch.behaviour.wait_s(mode) + self.settings.request_ms / 1000)
        if mode == "held":
            await self._hold(caller)
        if mode not in FRUITFUL:
            await caller.end(self._refusal(mode, key) or mode)
        words = self._words(request, scripted, mode).cut(request.most_tokens)
        return Reply(
            request=request,
            words=words,
            mode=mode,
            caller=caller,
            word_s=self.settings.word_ms / 1000,
            sent=lambda: self.recording.count_answered(request),
        ).answer()

    async def _hold(self, caller: Caller) -> None:
        permit = asyncio.ensure_future(self._permits.acquire())
        try:
            await caller.until(permit)
        finally:
            permit.cancel()

    async def _release(self, caller: Caller) -> Answer:
        """Let held questions be answered, those under way and those to come, in the order of their arrival."""
        count = read_json(await caller.body())["count"]
        for _ in range(count):
            self._permits.release()
        return json_answer({"released": count})

    def _words(self, request: ChatRequest, scripted: Mapping[str, Any], mode: str) -> Words:
        return Words(
            text=scripted.get("text", BAD_JSON if mode == "bad_json" else healthy_text(request)),
            finish_reason=scripted.get("finish_reason", "stop"),
            usage=mode != "no_usage",
        )

    def _check_context(self, request: ChatRequest) -> None:
        """Refuse a question that is too long, in the words of llama-server."""
        tokens, limit = prompt_tokens(request), self.settings.context
        if limit and tokens > limit:
            words = f"request ({tokens} tokens) exceeds the available context size ({limit} tokens), try increasing it"
            raise RefusalError(Refusal(status=400, message=words, code="exceed_context_size_error"))

    def _authorise(self, caller: Caller) -> str:
        header = caller.header(b"authorization").decode("latin-1")
        if self.settings.api_key and header != f"Bearer {self.settings.api_key}":
            raise refuse(401, "Incorrect API key provided")
        return header.removeprefix("Bearer ")

    def _next_scripted(self) -> Mapping[str, Any]:
        entry = self._script.popleft() if self._script else {}
        return {"text": entry} if isinstance(entry, str) else entry

    def _next_mode(self, request: ChatRequest) -> str:
        if request.marker in LlmBehaviour.MODES:
            return request.marker or "ok"
        return self.switch.next_mode(touched=self.switch.behaviour.touches(request.model, request.prompt))

    def _refusal(self, mode: str, key: str) -> Refusal | None:
        refusal: Refusal | None = self.switch.behaviour.refusal(mode)
        return refusal and replace(refusal, message=refusal.message.replace("{key}", key))

    async def _side(self, caller: Caller) -> Answer:
        if self.switch.side_mode() == "dead":
            raise HangUpError
        self._authorise(caller)
        names = self.settings.models
        answers: dict[str, Any] = {
            "/": "Ollama is running",
            "/api/version": {"version": "0.32.6"},
            "/api/tags": {"models": [{"name": f"{name}:latest", "model": f"{name}:latest"} for name in names]},
            "/v1/models": {
                "object": "list",
                "data": [{"id": name, "object": "model", "created": CREATED, "owned_by": "library"} for name in names],
            },
        }
        return json_answer(answers[caller.path])

    async def _take_script(self, caller: Caller) -> Answer:
        self._script.extend(read_json(await caller.body())["answers"])
        return json_answer({"scripted": len(self._script)})
