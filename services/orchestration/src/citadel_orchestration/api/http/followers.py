"""Streams that last as long as their runs: how many there may be, in all and per caller."""

from collections import Counter
from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from citadel_common.errors import Overloaded
from citadel_common.telemetry import Metrics, names
from citadel_orchestration.api.http.auth import CALLER_KEY
from citadel_orchestration.api.http.errors import TooManyStreams
from citadel_orchestration.api.http.routing import service_of


class Followers:
    """Counts the streams of one process.

    Args:
        limit: Most streams in all.
        per_caller: Most streams of one caller.
        metrics: Counts refusals.
    """

    def __init__(self, limit: int, per_caller: int, metrics: Metrics) -> None:
        self._limit = limit
        self._per_caller = per_caller
        self._metrics = metrics
        self._callers: Counter[str] = Counter()

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Count a stream of `caller` while the block runs.

        Raises:
            TooManyStreams: The caller has as many as it may.
            Overloaded: All callers have as many as they may.
        """
        if self._callers[caller] >= self._per_caller:
            self._metrics.count(names.API_REFUSED, 1, reason=TooManyStreams.code)
            raise TooManyStreams(f"you follow {self._per_caller} streams of this process, the limit")
        if self._callers.total() >= self._limit:
            self._metrics.count(names.API_REFUSED, 1, reason=Overloaded.code)
            raise Overloaded(f"{self._limit} streams are followed, the limit; try again later")
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]


class FollowerResponse(StreamingResponse):
    """A stream that counts while it is sent.

    Args:
        request: The request.
        content: The stream.
        media_type: Its type.
        headers: More headers.
    """

    def __init__(
        self,
        request: Request,
        content: AsyncIterable[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._followers = service_of(request, Followers)
        self._caller: str = request.scope.get(CALLER_KEY, "")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the response (Starlette's hook)."""
        with self._followers.admit(self._caller):
            await super().__call__(scope, receive, send)
