"""Ollama's double: the embedding routes, the catalogue, and the OpenAI-style routes."""

from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import parse_qs

from tests.doubles.base.answers import Answer, halved, json_answer, llama_error, read_json, text_answer, torn
from tests.doubles.base.application import Double
from tests.doubles.base.behaviour import Behaviour
from tests.doubles.base.caller import Caller
from tests.doubles.base.refusals import COMMON, Refusal, RefusalError, refuse
from tests.doubles.ollama.behaviour import OllamaBehaviour
from tests.doubles.ollama.embedding import Embedder
from tests.doubles.ollama.models import ModelSpec, canonical, running, show, tag
from tests.doubles.ollama.recording import OllamaRecording
from tests.doubles.ollama.requests import EmbedRequest, read_llama, read_ollama, read_openai
from tests.doubles.ollama.settings import OllamaSettings

CREATED = 1785585600  # models.MODIFIED_AT


class OllamaDouble(Double):
    """Ollama as far as embeddings go."""

    BEHAVIOUR = OllamaBehaviour
    MAIN: ClassVar = frozenset({"/api/embed", "/v1/embeddings"})

    def __init__(self, settings: OllamaSettings | None = None) -> None:
        self.settings = settings or OllamaSettings()
        super().__init__(OllamaRecording(self.settings.track_texts))
        self.embedder = Embedder(self.settings, self.switch, self.recording)
        self._is_llama = self.settings.manners == "llama"
        self._key = f"Bearer {self.settings.api_key}".encode()
        self.routes |= {
            ("GET", "/"): self._root,
            ("POST", "/api/embed"): self._api_embed,
            ("GET", "/api/tags"): self._tags,
            ("POST", "/api/show"): self._show,
            ("GET", "/api/ps"): self._ps,
            ("GET", "/api/version"): self._version,
            ("POST", "/v1/embeddings"): self._v1_embeddings,
            ("GET", "/v1/models"): self._v1_models,
        }

    async def answer(self, caller: Caller) -> Answer:
        """Return the answer to a request, as the behaviour spoils it."""
        if self.settings.api_key and caller.header(b"authorization") != self._key:
            raise RefusalError(COMMON["auth401"])
        if caller.path in self.MAIN:
            return await self.route(caller)
        mode = self.switch.behaviour.side_mode(self.switch.side_mode())
        await caller.sleep(await self.embedder.misbehave(mode, caller))
        return _spoiled(mode, await self.route(caller))

    def error(self, refusal: Refusal, caller: Caller) -> Answer:
        """Return an error in the form of the server whose manners the route has."""
        if self._is_llama and caller.path.startswith("/v1/") and not refusal.html:
            return llama_error(refusal)
        return super().error(refusal, caller)

    def stats(self, caller: Caller) -> dict[str, Any]:
        """Return the record of requests; `text_counts=0` leaves out the counts by text."""
        query = parse_qs(caller.scope.get("query_string", b""))
        text_counts = query.get(b"text_counts", [b"1"])[0] != b"0"
        return self.recording.snapshot(text_counts=text_counts) | {"loads": self.embedder.loader.loads}

    def set_behaviour(self, behaviour: Behaviour) -> None:
        """Put a behaviour in force; markers and the mode `loading` begin anew."""
        super().set_behaviour(behaviour)
        self.embedder.begin_anew()
        self.embedder.pull(self.switch.behaviour.digest_salt)

    def reset(self) -> None:
        """Become healthy, count from 0 and unload the models."""
        super().reset()
        self.embedder.loader.clear()

    async def _api_embed(self, caller: Caller) -> Answer:
        return await self._embed(read_ollama(await caller.body(), self.embedder.installed), caller)

    async def _v1_embeddings(self, caller: Caller) -> Answer:
        read = read_llama if self._is_llama else read_openai
        return await self._embed(read(await caller.body(), self.embedder.installed), caller)

    async def _embed(self, request: EmbedRequest, caller: Caller) -> Answer:
        return _spoiled(*await self.embedder.embed(request, caller))

    async def _root(self, _caller: Caller) -> Answer:
        return text_answer(b"Ollama is running", 200, b"text/plain; charset=utf-8")

    async def _version(self, _caller: Caller) -> Answer:
        return json_answer({"version": self.settings.version})

    async def _tags(self, _caller: Caller) -> Answer:
        installed = self.embedder.installed.values()
        return json_answer({"models": [tag(spec) for spec in installed]})

    async def _ps(self, _caller: Caller) -> Answer:
        specs = [self.embedder.installed[name] for name in self.embedder.loader.loaded]
        return json_answer({"models": [running(spec) for spec in specs]})

    async def _show(self, caller: Caller) -> Answer:
        data = read_json(await caller.body())
        name = str(data.get("model") or data.get("name") or "")
        if not name:
            raise refuse(400, "model is required")
        spec = self.embedder.installed.get(canonical(name))
        if spec is None:
            raise refuse(404, f"model '{name}' not found")
        return json_answer(show(spec))

    async def _v1_models(self, _caller: Caller) -> Answer:
        models = [self._v1_model(name, spec) for name, spec in self.embedder.installed.items()]
        return json_answer({"object": "list", "data": models})

    def _v1_model(self, name: str, spec: ModelSpec) -> dict[str, Any]:
        entry = {"id": f"{name}:latest", "object": "model", "created": CREATED, "owned_by": "library"}
        if self._is_llama:
            sizes = {"n_ctx": spec.token_limit({}), "n_embd": spec.dimensions}
            entry |= {"id": name, "owned_by": "llamacpp", "meta": sizes}
        return entry


def _spoiled(mode: str, answer: Answer) -> Answer:
    """Return an answer as the modes that touch its bytes leave it."""
    if mode == "empty_answer":
        return replace(answer, body=b"{}")
    if mode == "garbage_json":
        return halved(answer)
    return torn(answer) if mode == "disconnect" else answer
