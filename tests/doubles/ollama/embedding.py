"""One embedding request, from its texts to its answer."""

import time
from dataclasses import replace

from tests.doubles.base.answers import Answer
from tests.doubles.base.behaviour import Switch
from tests.doubles.base.caller import Caller
from tests.doubles.ollama.answers import ollama_body, openai_body
from tests.doubles.ollama.behaviour import FRUITFUL_MODES
from tests.doubles.ollama.computation import Computation, compute
from tests.doubles.ollama.loader import Loader
from tests.doubles.ollama.markers import Markers
from tests.doubles.ollama.models import KNOWN, ModelSpec, canonical
from tests.doubles.ollama.pacing import Slot, Slots
from tests.doubles.ollama.recording import OllamaRecording
from tests.doubles.ollama.requests import EmbedRequest
from tests.doubles.ollama.settings import OllamaSettings
from tests.doubles.ollama.vectors import FLAW_MODES, Flaw


class Embedder:
    """Installed models, and the slots in which they run."""

    def __init__(self, settings: OllamaSettings, switch: Switch, recording: OllamaRecording) -> None:
        self.installed: dict[str, ModelSpec] = {}
        self.loader = Loader(settings.max_queue)
        self._settings = settings
        self._slots = Slots(settings.slots)
        self._switch = switch
        self._recording = recording
        self.begin_anew()
        self.pull(None)

    def pull(self, salt: str | None) -> None:
        """Install the models in the version of a salt, by default the settings'; unload those that are replaced."""
        salt = self._settings.digest_salt if salt is None else salt
        for name in map(canonical, self._settings.models):
            spec = replace(KNOWN[name], salt=salt)
            if self.installed.get(name) != spec:
                self.installed[name] = spec
                self.loader.unload(name)

    def begin_anew(self) -> None:
        """Take up the markers of a new behaviour, and unload each model once more where it says so."""
        self._markers = Markers(self._switch.behaviour.markers)
        self._unloaded: set[str] = set()

    async def embed(self, request: EmbedRequest, caller: Caller) -> tuple[str, Answer]:
        """Return the mode of a request, and its answer."""
        self._recording.count_received(caller.path, request)
        behaviour, model = self._switch.behaviour, request.spec.name
        mode = self._switch.next_mode(touched=behaviour.touches(model))
        extra_s = await self.misbehave(mode, caller, base64=request.base64)
        load_s = await self._load(mode, request, caller)
        computed, slot = await self._run(mode, request, caller, caller.arrival + load_s, extra_s)
        self._recording.count_embedded(request)
        if request.keep_alive in (0, "0", "0s"):
            self.loader.unload(model)
        times_ns = (_ns(time.monotonic() - caller.arrival), _ns(load_s))
        return mode, Answer(_body(mode, request, computed, times_ns), sent=slot and slot.settle)

    async def misbehave(self, mode: str, caller: Caller, *, base64: bool = False) -> float:
        """Do what a mode does before any work; return the seconds it adds to the work."""
        if mode in {"ok", "loading"}:
            return 0.0
        wait_s: float = self._switch.behaviour.wait_s(mode)
        end = mode if base64 and mode == "nan" else self._switch.behaviour.refusal(mode) or mode
        if end in FRUITFUL_MODES:
            return wait_s
        await caller.sleep(wait_s)
        await caller.end(end)
        return 0.0

    async def _load(self, mode: str, request: EmbedRequest, caller: Caller) -> float:
        model = request.spec.name
        seconds = self._settings.load_ms / 1000
        if mode == "loading":
            seconds = self._switch.behaviour.wait_s(mode)
            if model not in self._unloaded:
                self._unloaded.add(model)
                self.loader.unload(model)
        return await self.loader.ensure(model, request.options, caller, seconds)

    async def _run(
        self, mode: str, request: EmbedRequest, caller: Caller, start: float, extra_s: float
    ) -> tuple[Computation, Slot | None]:
        if not request.texts:
            return Computation(vectors=[]), None
        slot = await self._slots.acquire(caller)
        try:
            self._recording.max_running = max(self._recording.max_running, self._slots.running)
            # encoded first and held back after: the encoding is part of the time it is to take
            computed = compute(request, self._markers, Flaw(mode) if mode in FLAW_MODES else None)
            seconds = (self._settings.request_ms + self._settings.text_ms * computed.run) / 1000
            await slot.occupy(caller, start, seconds + extra_s)
        finally:
            self._slots.release(slot)
        if computed.end is not None:
            await caller.end(computed.end)
        return computed, slot


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _body(mode: str, request: EmbedRequest, computed: Computation, times_ns: tuple[int, int]) -> bytes:
    vectors = computed.vectors
    if mode == "missing":
        vectors = vectors[:-1]
    if mode == "extra":
        vectors = vectors + vectors[-1:]
    if request.openai:
        return openai_body(request, vectors, computed.tokens, shuffled=mode == "shuffled")
    return ollama_body(request, vectors, computed.tokens, *times_ns)
