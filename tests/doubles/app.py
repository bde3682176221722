"""The double as an ASGI application: routes, control and what surrounds an answer."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

from tests.doubles.answers import Answer, error_answer, json_answer
from tests.doubles.behaviour import Behaviour
from tests.doubles.caller import Caller, Receive, Scope, Send
from tests.doubles.calls import read_json
from tests.doubles.embedding import Embedder, spoiled
from tests.doubles.models import canonical, running, show, tag
from tests.doubles.refusals import BY_MODE, CallerGoneError, HangUpError, RefusalError, refuse
from tests.doubles.settings import Settings

Handler = Callable[[Scope, Caller], Awaitable[Answer]]
CONTROL = "/_double/"
CREATED = 1785585600  # models.MODIFIED_AT


class OllamaDouble:
    """Ollama's embedding side, its OpenAI-style routes, and the control routes under `/_double/`."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.embedder = Embedder(self.settings)
        self._key = f"Bearer {self.settings.api_key}".encode()
        self._routes: dict[str, dict[str, Handler]] = {
            "/": {"GET": self._root},
            "/api/embed": {"POST": self._api_embed},
            "/api/tags": {"GET": self._tags},
            "/api/show": {"POST": self._show},
            "/api/ps": {"GET": self._ps},
            "/api/version": {"GET": self._version},
            "/v1/embeddings": {"POST": self._v1_embeddings},
            "/v1/models": {"GET": self._v1_models},
            "/_double/behaviour": {"GET": self._behaviour, "POST": self._set_behaviour},
            "/_double/stats": {"GET": self._stats},
            "/_double/reset": {"POST": self._reset},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller = Caller(scope, receive)
        try:
            answer = await self._answer(scope, caller)
            await answer.send(send)
            if answer.torn:
                await self._hang_up(caller)
        except CallerGoneError:
            self.embedder.tally.abandoned += 1
        except HangUpError:
            await self._hang_up(caller)
        finally:
            caller.leave()

    async def _hang_up(self, caller: Caller) -> None:
        self.embedder.tally.hung_up += 1
        await caller.hang_up()

    async def _answer(self, scope: Scope, caller: Caller) -> Answer:
        path = scope["path"]
        try:
            answer = await self._route(scope, caller)
        except RefusalError as error:
            answer = error_answer(error.refusal, openai=path.startswith("/v1/"))
        if path in {"/api/embed", "/v1/embeddings"}:
            self.embedder.tally.statuses[answer.status] += 1
        return answer

    async def _route(self, scope: Scope, caller: Caller) -> Answer:
        path = scope["path"]
        methods = self._routes.get(path)
        if methods is None:
            return Answer(b"404 page not found", 404, b"text/plain")
        handler = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if handler is None:
            return Answer(b"405 method not allowed", 405, b"text/plain")
        if path.startswith(CONTROL):
            return await handler(scope, caller)
        self._authorise(scope)
        if path in {"/api/embed", "/v1/embeddings"}:
            return await handler(scope, caller)
        return await self._aside(handler, scope, caller)

    def _authorise(self, scope: Scope) -> None:
        if self.settings.api_key and dict(scope["headers"]).get(b"authorization") != self._key:
            raise RefusalError(BY_MODE["auth401"])

    async def _aside(self, handler: Handler, scope: Scope, caller: Caller) -> Answer:
        self.embedder.tally.other_requests[scope["path"]] += 1
        mode = self.embedder.switch.side_mode()
        await caller.sleep(await self.embedder.misbehave(mode, caller))
        return spoiled(mode, await handler(scope, caller))

    async def _api_embed(self, scope: Scope, caller: Caller) -> Answer:
        return await self.embedder.embed(scope, caller, openai=False)

    async def _v1_embeddings(self, scope: Scope, caller: Caller) -> Answer:
        return await self.embedder.embed(scope, caller, openai=True)

    async def _root(self, _scope: Scope, _caller: Caller) -> Answer:
        return Answer(b"Ollama is running", 200, b"text/plain; charset=utf-8")

    async def _version(self, _scope: Scope, _caller: Caller) -> Answer:
        return json_answer({"version": self.settings.version})

    async def _tags(self, _scope: Scope, _caller: Caller) -> Answer:
        installed = self.embedder.installed.values()
        return json_answer({"models": [tag(spec, self.settings.digest_salt) for spec in installed]})

    async def _ps(self, _scope: Scope, _caller: Caller) -> Answer:
        specs = [self.embedder.installed[name] for name in self.embedder.loader.loaded]
        return json_answer({"models": [running(spec, self.settings.digest_salt) for spec in specs]})

    async def _show(self, _scope: Scope, caller: Caller) -> Answer:
        data = read_json(await caller.body())
        name = str(data.get("model") or data.get("name") or "")
        if not name:
            raise refuse(400, "model is required")
        spec = self.embedder.installed.get(canonical(name))
        if spec is None:
            raise refuse(404, f"model '{name}' not found")
        return json_answer(show(spec))

    async def _v1_models(self, _scope: Scope, _caller: Caller) -> Answer:
        models = [
            {"id": f"{name}:latest", "object": "model", "created": CREATED, "owned_by": "library"}
            for name in self.embedder.installed
        ]
        return json_answer({"object": "list", "data": models})

    async def _behaviour(self, _scope: Scope, _caller: Caller) -> Answer:
        return json_answer(self.embedder.switch.behaviour)

    async def _set_behaviour(self, scope: Scope, caller: Caller) -> Answer:
        try:
            behaviour = Behaviour.parse(read_json(await caller.body()))
            self.embedder.switch.set(behaviour)
        except (ValueError, TypeError) as error:
            raise refuse(400, str(error)) from error
        return await self._behaviour(scope, caller)

    async def _stats(self, scope: Scope, _caller: Caller) -> Answer:
        wanted = parse_qs(scope["query_string"]).get(b"text_counts", [b"1"])[0] != b"0"
        numbers: dict[str, Any] = self.embedder.tally.snapshot(text_counts=wanted)
        return Answer(orjson.dumps(numbers | {"loads": self.embedder.loader.loads}))

    async def _reset(self, _scope: Scope, _caller: Caller) -> Answer:
        self.embedder.tally.reset()
        self.embedder.loader.clear()
        self.embedder.switch.set(Behaviour())
        return json_answer({})
