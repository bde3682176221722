"""The base of all doubles: an ASGI application with routes, faults, a record of requests, and control of both."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import orjson

from tests.doubles.base.answers import Answer, error_answer, json_answer, text_answer
from tests.doubles.base.behaviour import Behaviour, Switch
from tests.doubles.base.caller import Caller, Receive, Scope, Send
from tests.doubles.base.recording import Recording
from tests.doubles.base.refusals import CallerGoneError, HangUpError, Refusal, RefusalError, refuse

Handler = Callable[[Caller], Awaitable[Answer]]
CONTROL = "/_double/"


class Double:
    """A server; `/_double/{behaviour,stats,reset}` control it.

    A double adds its routes to `routes`, names the main ones in MAIN, and overrides what its server does differently.
    """

    BEHAVIOUR: ClassVar[type[Behaviour]] = Behaviour
    MAIN: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, recording: Recording) -> None:
        self.recording: Any = recording
        self.switch = Switch(self.BEHAVIOUR())
        self.routes: dict[tuple[str, str], Handler] = {
            ("GET", "/_double/behaviour"): self._show_behaviour,
            ("POST", "/_double/behaviour"): self._change_behaviour,
            ("GET", "/_double/stats"): self._show_stats,
            ("POST", "/_double/reset"): self._reset,
        }

    async def answer(self, caller: Caller) -> Answer:
        """Return the answer to a request that is not for control."""
        return await self.route(caller)

    def error(self, refusal: Refusal, caller: Caller) -> Answer:
        """Return an error in the server's own form."""
        return error_answer(refusal, openai=caller.path.startswith("/v1/"))

    def stats(self, _caller: Caller) -> dict[str, Any]:
        """Return the record of requests."""
        found: dict[str, Any] = self.recording.snapshot()
        return found

    def set_behaviour(self, behaviour: Behaviour) -> None:
        """Put a behaviour in force."""
        self.switch.set(behaviour)

    def reset(self) -> None:
        """Become healthy and count from 0."""
        self.recording.reset()
        self.set_behaviour(self.BEHAVIOUR())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        caller = Caller(scope, receive)
        try:
            await self._serve(caller, send)
        except CallerGoneError:
            self.recording.abandoned += 1
        except HangUpError:
            self.recording.hung_up += 1
            await caller.hang_up()
        finally:
            caller.leave()

    async def _serve(self, caller: Caller, send: Send) -> None:
        if caller.path.startswith(CONTROL):
            await (await self._answered(self.route, caller)).send(send)
        elif caller.path in self.MAIN:
            with self.recording.under_way(caller):
                answer = await self._answered(self.answer, caller)
                self.recording.statuses[answer.status] += 1
                await answer.send(send)
        else:
            self.recording.other_requests[caller.path] += 1
            await (await self._answered(self.answer, caller)).send(send)

    async def _answered(self, handler: Handler, caller: Caller) -> Answer:
        try:
            return await handler(caller)
        except RefusalError as error:
            return self.error(error.refusal, caller)

    async def route(self, caller: Caller) -> Answer:
        """Return the answer of the request's route."""
        handler = self.routes.get((caller.method, caller.path))
        if handler is not None:
            return await handler(caller)
        if any(path == caller.path for _, path in self.routes):
            return text_answer(b"405 method not allowed", 405)
        return text_answer(b"404 page not found", 404)

    async def _show_behaviour(self, _caller: Caller) -> Answer:
        return json_answer(self.switch.behaviour)

    async def _change_behaviour(self, caller: Caller) -> Answer:
        try:
            self.set_behaviour(self.BEHAVIOUR.parse(orjson.loads(await caller.body())))
        except (ValueError, TypeError) as error:
            raise refuse(400, str(error)) from error
        return await self._show_behaviour(caller)

    async def _show_stats(self, caller: Caller) -> Answer:
        return json_answer(self.stats(caller))

    async def _reset(self, _caller: Caller) -> Answer:
        self.reset()
        return json_answer({})
