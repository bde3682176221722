"""Qdrant's double: its REST side as far as Citadel uses it."""

from collections import Counter
from dataclasses import replace
from typing import Any

from tests.doubles.base.answers import Answer, halved, html_answer, json_answer, retry_after, text_answer
from tests.doubles.base.application import Double
from tests.doubles.base.caller import Caller
from tests.doubles.base.recording import Recording
from tests.doubles.base.refusals import Refusal, RefusalError
from tests.doubles.qdrant.behaviour import QdrantBehaviour
from tests.doubles.qdrant.engine import QdrantEngine
from tests.doubles.qdrant.refusals import NO_KEY, UNAUTHORIZED, missing
from tests.doubles.qdrant.settings import QdrantSettings

VERSION = "1.18.2"
PROBES = {
    "/readyz": b"all shards are ready",
    "/healthz": b"healthz check passed",
    "/livez": b"healthz check passed",
}


class QdrantDouble(Double):
    """Qdrant, with its collections in memory."""

    BEHAVIOUR = QdrantBehaviour

    def __init__(self, settings: QdrantSettings | None = None) -> None:
        super().__init__(Recording())
        settings = settings or QdrantSettings()
        self._key = settings.api_key.encode()
        self._engine = QdrantEngine(settings.storage)
        self._requests: Counter[str] = Counter()

    def reset(self) -> None:
        """Become healthy, count from 0 and drop the collections."""
        super().reset()
        self._engine = QdrantEngine()
        self._requests = Counter()

    def stats(self, caller: Caller) -> dict[str, Any]:
        """Return the mode, and the requests by method and path."""
        return super().stats(caller) | {"mode": self.switch.behaviour.mode, "requests": self._requests}

    def error(self, refusal: Refusal, _caller: Caller) -> Answer:
        """Return an error in Qdrant's envelope; pages of proxies and refused keys come without."""
        if refusal.html:
            return html_answer(refusal)
        if refusal.status == UNAUTHORIZED.status:
            return text_answer(refusal.message.encode(), refusal.status)
        body = {"status": {"error": refusal.message}, "time": 0.0}
        return replace(json_answer(body, refusal.status), headers=retry_after(refusal))

    async def answer(self, caller: Caller) -> Answer:
        """Return the answer of a probe or of the engine, as the behaviour spoils it."""
        self._requests[f"{caller.method} {caller.path}"] += 1
        body = await caller.body()
        mode = self.switch.next_mode(touched=self.switch.behaviour.touches(caller.path))
        if mode == "not_ready" and caller.path == "/readyz":
            return text_answer(b"some shards are not ready", 503)
        if mode == "missing_collection" and caller.path.startswith("/collections/"):
            raise RefusalError(missing(caller.path.split("/")[2]))
        await caller.sleep(self.switch.behaviour.wait_s(mode))
        await caller.end(self.switch.behaviour.refusal(mode) or mode)
        answer = self._healthy(caller, body)
        return halved(answer) if mode == "garbage_json" else answer

    def _healthy(self, caller: Caller, body: bytes) -> Answer:
        if caller.path in PROBES:
            return text_answer(PROBES[caller.path])
        if self._key and caller.header(b"api-key") != self._key:
            raise RefusalError(UNAUTHORIZED if caller.header(b"api-key") else NO_KEY)
        if caller.path == "/":
            return json_answer({"title": "qdrant - vector search engine", "version": VERSION, "commit": "0" * 40})
        result = self._engine.answer(caller.method, caller.path, body)
        if result is None:
            return text_answer(b"", 404)
        return json_answer({"result": result, "status": "ok", "time": 0.0})
