"""One embedding request, from its bytes to its answer."""

import time
from dataclasses import replace

from tests.doubles.answers import Answer, ollama_body, openai_body
from tests.doubles.behaviour import ANSWER_MODES, Switch
from tests.doubles.caller import Caller, Scope
from tests.doubles.calls import Call, read_ollama, read_openai
from tests.doubles.loader import Loader
from tests.doubles.models import KNOWN, canonical
from tests.doubles.pacing import Slots
from tests.doubles.refusals import HangUpError, Refusal, RefusalError
from tests.doubles.settings import Settings
from tests.doubles.tally import Tally
from tests.doubles.vectors import FLAW_MODES, Flaw
from tests.doubles.work import NO_WORK, Work, plan

# these do the work, late or badly
FRUITFUL_MODES = ANSWER_MODES | FLAW_MODES | {"slow", "disconnect"}


class Embedder:
    """The embedding side of the double: models, slots, behaviour and counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.installed = {canonical(name): KNOWN[canonical(name)] for name in settings.models}
        self.loader = Loader(settings.max_queue)
        self.slots = Slots(settings.slots)
        self.switch = Switch()
        self.tally = Tally(settings.track_texts)
        self._in_flight = 0

    async def embed(self, scope: Scope, caller: Caller, *, openai: bool) -> Answer:
        """Answer a request, and count how many are under way."""
        self.tally.requests += 1
        self._in_flight += 1
        self.tally.max_in_flight = max(self.tally.max_in_flight, self._in_flight)
        try:
            return await self._embed(scope, caller, openai=openai)
        finally:
            self._in_flight -= 1

    async def _embed(self, scope: Scope, caller: Caller, *, openai: bool) -> Answer:
        body = await caller.body()
        call = (read_openai if openai else read_ollama)(body, self.installed)
        self.tally.received_call(scope, call)
        mode = self.switch.next_mode(call.spec.name)
        extra_s = await self.misbehave(mode, caller, base64=call.base64)
        load_s = await self._load(mode, call, caller)
        work = await self._run(mode, call, caller, caller.arrival + load_s, extra_s)
        self._finish(call)
        times_ns = (_ns(time.monotonic() - caller.arrival), _ns(load_s))
        return spoiled(mode, Answer(_body(mode, call, work, times_ns, openai=openai), slot=work.slot))

    async def misbehave(self, mode: str, caller: Caller, *, base64: bool = False) -> float:
        """Do what a mode does before any work; return the seconds it adds to the work."""
        if mode in {"ok", "loading"}:
            return 0.0
        wait_s = self.switch.behaviour.wait_s(mode)
        end = mode if base64 and mode == "nan" else self.switch.behaviour.refusal(mode) or mode
        if end in FRUITFUL_MODES:
            return wait_s
        await caller.sleep(wait_s)
        await _end(end, caller)
        return 0.0

    async def _load(self, mode: str, call: Call, caller: Caller) -> float:
        model = call.spec.name
        seconds = self.settings.load_ms / 1000
        if mode == "loading":
            seconds = self.switch.behaviour.wait_s(mode)
            if model not in self.switch.unloaded:
                self.switch.unloaded.add(model)
                self.loader.unload(model)
        return await self.loader.ensure(model, call.options, caller, seconds)

    async def _run(self, mode: str, call: Call, caller: Caller, start: float, extra_s: float) -> Work:
        if not call.texts:
            return NO_WORK
        slot = await self.slots.acquire(caller)
        try:
            self.tally.max_running = max(self.tally.max_running, self.slots.running)
            # encoded first and held back after: the encoding is part of the time it is to take
            work = plan(call, slot, self.switch.markers, Flaw(mode) if mode in FLAW_MODES else None)
            seconds = (self.settings.request_ms + self.settings.text_ms * work.run) / 1000
            await slot.occupy(caller, start, seconds + extra_s)
        finally:
            self.slots.release(slot)
        if work.end is not None:
            await _end(work.end, caller)
        return work

    def _finish(self, call: Call) -> None:
        self.tally.embedded_call(call)
        if call.keep_alive in (0, "0", "0s"):
            self.loader.unload(call.spec.name)


async def _end(end: Refusal | str, caller: Caller) -> None:
    if isinstance(end, Refusal):
        raise RefusalError(end)
    if end == "dead":
        raise HangUpError
    if end == "hang":
        await caller.hang()


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _body(mode: str, call: Call, work: Work, times_ns: tuple[int, int], *, openai: bool) -> bytes:
    vectors = _miscounted(mode, work.vectors)
    if openai:
        return openai_body(call, vectors, work.tokens, shuffled=mode == "shuffled")
    return ollama_body(call, vectors, work.tokens, *times_ns)


def _miscounted(mode: str, vectors: list[bytes]) -> list[bytes]:
    if mode == "missing":
        return vectors[:-1]
    return vectors + vectors[-1:] if mode == "extra" else vectors


def spoiled(mode: str, answer: Answer) -> Answer:
    """Return an answer as the modes that touch its bytes leave it."""
    if mode == "empty_answer":
        return replace(answer, body=b"{}")
    if mode == "garbage_json":
        return replace(answer, body=answer.body[: len(answer.body) // 2])
    return replace(answer, torn=True) if mode == "disconnect" else answer
