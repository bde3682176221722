"""ASGI middleware that every request passes: trace, API key, rate limit, body limit, then metrics and a log line."""

import logging
import time
from typing import Any

import structlog
from starlette.requests import ClientDisconnect

from citadel_common import logs
from citadel_common.errors import CitadelError
from citadel_common.telemetry import Metrics, names, tracing
from citadel_orchestration.api.http.auth import CALLER_KEY, OPEN_PATHS, Auth
from citadel_orchestration.api.http.body_limit import BodyLimit, release
from citadel_orchestration.api.http.paths import Paths
from citadel_orchestration.api.http.problems import response_to, unforeseen
from citadel_orchestration.api.http.rate_limit import RateLimit
from citadel_orchestration.api.http.sampling import RouteSampling
from citadel_orchestration.api.http.trace import SCOPE_KEY, Trace, note_end, path_of, traced

log = structlog.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)


CLIENT_LEFT = 499
"""Status under which a request is counted that its client, or a limit of its connection, has ended."""


class ResponseSender:
    """Sender of one response: adds headers, remembers the status and whether the response has begun.

    A `Location` gets the base path, by which clients reach what was created.
    """

    __slots__ = ("_base", "_headers", "_send", "begun", "status")

    def __init__(self, send: Any, headers: list[tuple[bytes, bytes]], base: bytes) -> None:
        self._send = send
        self._headers = headers
        self._base = base
        self.begun = False
        self.status = 500

    async def send(self, message: Any) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            headers = message.get("headers", ())
            message["headers"] = [*(map(self._outside, headers) if self._base else headers), *self._headers]
        await self._send(message)

    def _outside(self, header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return (header[0], self._base + header[1]) if header[0] == b"location" else header


class Middleware:
    """The middleware around the application.

    Args:
        app: The ASGI application.
        paths: Spellings of paths.
        auth: Checks API keys.
        rate_limit: Counts requests per caller.
        body_limit: Refuses large bodies.
        sampling: Decides which requests begin a trace.
        metrics: Counts and times requests.
    """

    def __init__(
        self,
        app: Any,
        *,
        paths: Paths,
        auth: Auth,
        rate_limit: RateLimit,
        body_limit: BodyLimit,
        sampling: RouteSampling,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._paths, self._base = paths, paths.base.encode()
        self._auth = auth
        self._rate_limit = rate_limit
        self._body_limit = body_limit
        self._sampling = sampling
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._paths.normalised(scope)
        with traced(scope, self._sampling) as trace:
            await self._serve(scope, receive, send, trace)

    async def _serve(self, scope: Any, receive: Any, send: Any, trace: Trace) -> None:
        scope[SCOPE_KEY] = trace.trace_id
        logs.bind(trace_id=trace.trace_id)
        sender, started = ResponseSender(send, trace.headers, self._base), time.perf_counter()
        try:
            await self._respond(scope, receive, sender)
        finally:
            release(scope)
            self._record(scope, sender.status, time.perf_counter() - started)

    async def _respond(self, scope: Any, receive: Any, sender: ResponseSender) -> None:
        try:
            caller = scope[CALLER_KEY] = self._auth.check(scope)
            if scope["path"] not in OPEN_PATHS:
                await self._rate_limit.check(caller)
            await self._app(scope, self._body_limit.guard(scope, receive), sender.send)
        except CitadelError as error:
            await response_to(error, scope)(scope, receive, sender.send)
        except ClientDisconnect:
            if not sender.begun:
                sender.status = CLIENT_LEFT
            log.debug("client_left", path=path_of(scope))
        except Exception:
            log.exception("request_crashed", method=scope["method"], path=path_of(scope))
            # The status of a response that has begun cannot change: the server closes the connection instead.
            if not sender.begun:
                await response_to(unforeseen(), scope)(scope, receive, sender.send)

    def _record(self, scope: Any, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "")
        note_end(tracing.current_span(), scope, path, status)
        route = path or "none"
        self._metrics.count(names.API_REQUESTS, 1, route=route, status=str(status))
        self._metrics.observe(names.API_SECONDS, seconds, route=route)
        level = logging.WARNING if status >= 500 else logging.INFO if status >= 400 else logging.DEBUG
        if _stdlib_log.isEnabledFor(level):
            duration = round(seconds * 1000, 2)
            log.log(level, "request", method=scope["method"], path=path_of(scope), status=status, ms=duration)
