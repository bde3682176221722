"""What every request passes, as one ASGI middleware: trace, key, rate and size; and what is noted at its end."""

import logging
import time
from typing import Any

import structlog
from starlette.requests import ClientDisconnect

from citadel_common import logs
from citadel_common.errors import CitadelError
from citadel_common.telemetry import Metrics, names, tracing
from citadel_orchestration.api.http.auth import OPEN_PATHS, Auth
from citadel_orchestration.api.http.body_limit import BodyLimit
from citadel_orchestration.api.http.problems import response_to, unforeseen
from citadel_orchestration.api.http.rate_limit import RateLimit
from citadel_orchestration.api.http.trace import SCOPE_KEY, Trace, note_end, path_of, traced

log = structlog.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)


class Exchange:
    """One request's response as it is sent: its status, and whether it has begun."""

    __slots__ = ("_extra", "_send", "begun", "status")

    def __init__(self, send: Any, extra: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._extra = extra
        self.begun = False
        self.status = 500

    async def send(self, message: Any) -> None:
        """ASGI's send, with the trace headers."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._extra]
        await self._send(message)


class Gate:
    """The middleware around the application."""

    def __init__(self, app: Any, auth: Auth, rate: RateLimit, limit: BodyLimit, metrics: Metrics) -> None:
        self._app = app
        self._auth = auth
        self._rate = rate
        self._limit = limit
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with traced(scope) as trace:
            await self._exchange(scope, receive, send, trace)

    async def _exchange(self, scope: Any, receive: Any, send: Any, trace: Trace) -> None:
        scope[SCOPE_KEY] = trace.trace_id
        logs.bind(trace_id=trace.trace_id)
        exchange, started = Exchange(send, trace.headers), time.perf_counter()
        try:
            await self._pass(scope, receive, exchange)
        finally:
            self._note(scope, exchange.status, time.perf_counter() - started)

    async def _pass(self, scope: Any, receive: Any, exchange: Exchange) -> None:
        try:
            caller = self._auth.check(scope)
            if scope["path"] not in OPEN_PATHS:
                await self._rate.check(caller)
            await self._app(scope, self._limit.guard(scope, receive), exchange.send)
        except CitadelError as error:
            await response_to(error, scope)(scope, receive, exchange.send)
        except ClientDisconnect:
            log.debug("client_left", path=path_of(scope))
        except Exception:
            log.exception("request_crashed", method=scope["method"], path=path_of(scope))
            if not exchange.begun:
                await response_to(unforeseen(), scope)(scope, receive, exchange.send)

    def _note(self, scope: Any, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "")
        note_end(tracing.current_span(), scope, path, status)
        route = path or "none"
        self._metrics.count(names.API_REQUESTS, 1, route=route, status=str(status))
        self._metrics.observe(names.API_SECONDS, seconds, route=route)
        level = logging.WARNING if status >= 500 else logging.INFO if status >= 400 else logging.DEBUG
        if _stdlib_log.isEnabledFor(level):
            duration = round(seconds * 1000, 2)
            log.log(level, "request", method=scope["method"], path=path_of(scope), status=status, ms=duration)
