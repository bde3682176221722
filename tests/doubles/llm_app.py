"""The LLM double as an ASGI application: routes, control, and one question from its bytes to its answer."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.doubles.answers import Answer, error_answer, json_answer
from tests.doubles.caller import Caller, Receive, Scope, Send
from tests.doubles.calls import read_json
from tests.doubles.llm_answers import CREATED, Words, stream_end, stream_error, stream_piece, whole
from tests.doubles.llm_behaviour import CUT_SHORT, FRUITFUL, MODES, QUOTA, LlmBehaviour
from tests.doubles.llm_calls import ChatCall, healthy_text, read_chat
from tests.doubles.llm_settings import LlmDoubleSettings
from tests.doubles.llm_tally import LlmTally
from tests.doubles.refusals import CallerGoneError, HangUpError, RefusalError, refuse

OPENAI, OLLAMA = "/v1/chat/completions", "/api/chat"
TEMPORARY_REDIRECT = 307
BAD_JSON = 'Sure! Here it is: {"answer": '


class LlmDouble:
    """Both chat protocols, the side routes that health checks use, and the control routes under `/_double/`."""

    def __init__(self, settings: LlmDoubleSettings | None = None) -> None:
        self.settings = settings or LlmDoubleSettings()
        self.tally = LlmTally(self.settings.track_prompts)
        self._script: deque[Any] = deque()
        self._set(LlmBehaviour())

    def _set(self, behaviour: LlmBehaviour) -> None:
        self.behaviour = behaviour
        self._seen = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller = Caller(scope, receive)
        path = scope["path"]
        try:
            if (path in {OPENAI, OLLAMA}) and scope["method"] == "POST":
                await self._counted(scope, caller, send)
            else:
                await (await self._aside(scope, caller)).send(send)
        except CallerGoneError:
            self.tally.abandoned += 1
        except HangUpError:
            self.tally.hung_up += 1
            await caller.hang_up()
        finally:
            caller.leave()

    async def _counted(self, scope: Scope, caller: Caller, send: Send) -> None:
        self.tally.began(scope)
        openai = scope["path"] == OPENAI
        try:
            await self._chat(scope, caller, send, openai=openai)
        except RefusalError as error:
            self.tally.statuses[error.refusal.status] += 1
            await _send_refusal(error, send, scope["path"], openai=openai)
        finally:
            self.tally.ended()

    async def _chat(self, scope: Scope, caller: Caller, send: Send, *, openai: bool) -> None:
        key = self._authorise(scope)
        call = read_chat(await caller.body(), self.settings.installed, openai=openai)
        self.tally.received(call)
        scripted = self._next_scripted()
        mode = scripted.get("mode") or self._next_mode(call)
        await caller.sleep(self.behaviour.wait_s(mode) + self.settings.request_ms / 1000)
        await self._misbehave(mode, caller, key)
        words = Words(
            text=scripted.get("text", BAD_JSON if mode == "bad_json" else healthy_text(call)),
            finish_reason=scripted.get("finish_reason", "stop"),
            usage=mode != "no_usage",
        )
        if call.stream and mode != "no_stream":
            await self._stream(call, words, mode, caller, send, openai=openai)
        else:
            await self._send_whole(call, words, mode, caller, send, openai=openai)
        self.tally.statuses[200] += 1
        self.tally.answered_call(call)

    def _authorise(self, scope: Scope) -> str:
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        if self.settings.api_key and header != f"Bearer {self.settings.api_key}":
            raise refuse(401, "Incorrect API key provided")
        return header.removeprefix("Bearer ")

    def _next_scripted(self) -> Mapping[str, Any]:
        entry = self._script.popleft() if self._script else {}
        return {"text": entry} if isinstance(entry, str) else entry

    def _next_mode(self, call: ChatCall) -> str:
        if call.marker in MODES:
            return call.marker or "ok"
        if not self.behaviour.touches(call.model, call.prompt):
            return "ok"
        self._seen += 1
        return self.behaviour.mode_at(self._seen - 1)

    async def _misbehave(self, mode: str, caller: Caller, key: str) -> None:
        if mode in FRUITFUL:
            return
        if mode == "dead":
            raise HangUpError
        refusal = self.behaviour.refusal(mode)
        if refusal is None:
            await caller.hang()
        else:
            raise RefusalError(replace(refusal, message=refusal.message.replace("{key}", key)))

    async def _send_whole(
        self, call: ChatCall, words: Words, mode: str, caller: Caller, send: Send, *, openai: bool
    ) -> None:
        body = whole(call, words, openai=openai)
        if mode == "stream_error":
            body = stream_error(openai=openai).removeprefix(b"data: ")
        if mode in {"garbage_json", "truncated"}:
            body = body[: len(body) // 2]
        torn = mode in {"disconnect", "stall", "endless"}
        await Answer(body, torn=torn).send(send)
        if torn:
            await _break_off(mode, caller)

    async def _stream(
        self, call: ChatCall, words: Words, mode: str, caller: Caller, send: Send, *, openai: bool
    ) -> None:
        content_type = b"text/event-stream; charset=utf-8" if openai else b"application/x-ndjson"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        pieces = [stream_piece(call, text, openai=openai) for text in words.pieces]
        if mode in CUT_SHORT:
            pieces = pieces[: max(1, len(pieces) // 2)]
        if mode == "garbage_json":
            pieces = [pieces[0][: len(pieces[0]) // 2] + b"\n\n"]
        if mode == "comments" and openai:
            pieces = [part for piece in pieces for part in (b": PROCESSING\n\n", b"event: message\r\n", piece)]
        for piece in pieces:
            await caller.sleep(self.settings.word_ms / 1000)
            await _write(send, piece)
        await self._end_stream(call, words, mode, caller, send, openai=openai)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end_stream(
        self, call: ChatCall, words: Words, mode: str, caller: Caller, send: Send, *, openai: bool
    ) -> None:
        if mode == "endless":
            while True:
                await caller.sleep(0.0001)
                await _write(send, stream_piece(call, "more " * 200, openai=openai))
        if mode in {"disconnect", "stall"}:
            await _break_off(mode, caller)
        if mode == "stream_error":
            await _write(send, stream_error(openai=openai))
        elif mode not in {"garbage_json", "truncated"}:
            for piece in stream_end(call, words, openai=openai, done=mode != "no_done"):
                await _write(send, piece)

    async def _aside(self, scope: Scope, caller: Caller) -> Answer:
        try:
            if scope["path"].startswith("/_double/"):
                return await self._control(scope["method"], scope["path"].removeprefix("/_double/"), caller)
            return self._side_route(scope)
        except RefusalError as error:
            return error_answer(error.refusal, openai=False)

    def _side_route(self, scope: Scope) -> Answer:
        self.tally.other_requests[scope["path"]] += 1
        if self.behaviour.mode == "dead":
            raise HangUpError
        models = self.settings.installed
        answers = {
            "/": "Ollama is running",
            "/api/version": {"version": "0.32.6"},
            "/api/tags": {"models": [{"name": f"{name}:latest", "model": f"{name}:latest"} for name in models]},
            "/v1/models": {
                "object": "list",
                "data": [{"id": name, "object": "model", "created": CREATED, "owned_by": "library"} for name in models],
            },
        }
        if scope["path"] not in answers:
            return Answer(b"404 page not found", 404, b"text/plain")
        self._authorise(scope)
        return json_answer(answers[scope["path"]])

    async def _control(self, method: str, name: str, caller: Caller) -> Answer:
        if (method, name) == ("GET", "stats"):
            return json_answer(self.tally.snapshot() | {"scripted": len(self._script)})
        if (method, name) == ("POST", "reset"):
            self.tally.reset()
            self._script.clear()
            self._set(LlmBehaviour())
        elif (method, name) == ("POST", "script"):
            self._script.extend(read_json(await caller.body())["answers"])
        elif (method, name) == ("POST", "behaviour"):
            await self._set_behaviour(caller)
        else:
            raise refuse(404, f"no control route {method} {name}")
        return json_answer({"mode": self.behaviour.mode, "scripted": len(self._script)})

    async def _set_behaviour(self, caller: Caller) -> None:
        try:
            self._set(LlmBehaviour.parse(read_json(await caller.body())))
        except (ValueError, TypeError) as error:
            raise refuse(400, str(error)) from error


async def _write(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _break_off(mode: str, caller: Caller) -> None:
    if mode == "disconnect":
        raise HangUpError
    await caller.hang()


async def _send_refusal(error: RefusalError, send: Send, path: str, *, openai: bool) -> None:
    refusal = error.refusal
    if refusal.status == TEMPORARY_REDIRECT:
        headers = [(b"location", path.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    answer = error_answer(refusal, openai=openai)
    if refusal.message == QUOTA:
        answer = replace(answer, body=answer.body.replace(b"rate_limit_exceeded", b"insufficient_quota"))
    await answer.send(send)
