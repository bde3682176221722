"""The Qdrant double as an ASGI application: routes, control and what surrounds an answer."""

from collections import Counter
from typing import Any

import orjson

from tests.doubles.answers import Answer, json_answer
from tests.doubles.caller import Caller, Receive, Scope, Send
from tests.doubles.qdrant_behaviour import QdrantBehaviour, QdrantSwitch
from tests.doubles.qdrant_engine import QdrantEngine
from tests.doubles.qdrant_refusals import BY_MODE, PROXY_PAGE, UNAUTHORIZED, QdrantRefusalError, missing
from tests.doubles.refusals import CallerGoneError, HangUpError

CONTROL = "/_double/"
VERSION = "1.18.2"
PROBES = {
    "/readyz": b"all shards are ready",
    "/healthz": b"healthz check passed",
    "/livez": b"healthz check passed",
}


class QdrantDouble:
    """Qdrant's REST side as far as Citadel uses it, and the control routes under `/_double/`."""

    def __init__(self, api_key: str = "") -> None:
        self._key = api_key.encode()
        self._reset()

    def _reset(self) -> None:
        self._switch = QdrantSwitch()
        self._engine = QdrantEngine()
        self._requests: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller = Caller(scope, receive)
        try:
            answer = await self._answer(scope, caller)
            await answer.send(send)
            if answer.torn:
                await caller.hang_up()
        except CallerGoneError:
            self._requests["abandoned"] += 1
        except HangUpError:
            await caller.hang_up()
        finally:
            caller.leave()

    async def _answer(self, scope: Scope, caller: Caller) -> Answer:
        path, method = scope["path"], scope["method"]
        if path.startswith(CONTROL):
            return self._control(path.removeprefix(CONTROL), await caller.body())
        self._requests[f"{method} {path}"] += 1
        body = await caller.body()
        mode = self._switch.mode(path)
        try:
            spoiled = await self._misbehave(mode, path, caller)
            answer = spoiled or self._serve(scope, body)
        except QdrantRefusalError as error:
            answer = error.answer()
        return Answer(answer.body[: len(answer.body) // 2]) if mode == "garbage_json" else answer

    async def _misbehave(self, mode: str, path: str, caller: Caller) -> Answer | None:
        if mode == "dead":
            raise HangUpError
        if mode == "hang":
            await caller.hang()
        if mode == "slow":
            await caller.sleep(self._switch.behaviour.delay_ms / 1000)
        if mode == "not_ready" and path == "/readyz":
            return Answer(b"some shards are not ready", 503, b"text/plain")
        if mode == "missing_collection" and path.startswith("/collections/"):
            raise missing(path.split("/")[2])
        if mode in BY_MODE:
            raise BY_MODE[mode]
        return {"html502": PROXY_PAGE, "unauthorized401": UNAUTHORIZED}.get(mode)

    def _serve(self, scope: Scope, body: bytes) -> Answer:
        path = scope["path"]
        if path in PROBES:
            return Answer(PROBES[path], 200, b"text/plain")
        if self._key and dict(scope["headers"]).get(b"api-key") != self._key:
            return UNAUTHORIZED
        if path == "/":
            return json_answer({"title": "qdrant - vector search engine", "version": VERSION, "commit": "0" * 40})
        result = self._engine.answer(scope["method"], path, body)
        if result is None:
            return Answer(b"", 404, b"text/plain")
        return json_answer({"result": result, "status": "ok", "time": 0.0})

    def _control(self, action: str, body: bytes) -> Answer:
        if action == "reset":
            self._reset()
        elif action == "behaviour":
            try:
                self._switch.set(QdrantBehaviour.parse(orjson.loads(body)))
            except (ValueError, TypeError) as error:
                return Answer(orjson.dumps({"error": str(error)}), 400)
        state: dict[str, Any] = {"mode": self._switch.behaviour.mode, "requests": self._requests}
        return json_answer(state)
