"""The URLs of one backend: which one takes the next call.

Least outstanding tokens first; a URL whose breaker is open or whose limit is reached takes none. Callers wait
until some URL can.
"""

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable, CitadelError, DeadlineExceeded, UnknownModel
from citadel_common.telemetry import Metrics, names
from citadel_embeddings.breaker import Breaker, State
from citadel_embeddings.limiter import AdaptiveLimit

log = structlog.get_logger(__name__)
RECHECK = 0.1
"""Seconds after which waiters look again for a breaker that has become half open."""


@dataclass
class Endpoint:
    """One URL."""

    url: str
    limit: AdaptiveLimit
    breakers: defaultdict[str, Breaker]
    outstanding_tokens: int = 0


class Endpoints:
    """All URLs of one backend; belongs to one event loop."""

    def __init__(
        self,
        name: str,
        urls: list[str],
        *,
        concurrency: int,
        max_concurrency: int,
        patience: float,
        longest_pause: float,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self._patience = patience
        self._all = [
            Endpoint(
                url,
                AdaptiveLimit(float(min(concurrency, max_concurrency)), max_concurrency),
                defaultdict(functools.partial(Breaker, longest_pause=longest_pause)),
            )
            for url in urls
        ]
        self._metrics = metrics
        self._changed = asyncio.Condition()
        self._tell_open()

    @property
    def urls(self) -> list[str]:
        """Their URLs."""
        return [endpoint.url for endpoint in self._all]

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return all(endpoint.limit.in_flight == 0 for endpoint in self._all)

    def down_because(self, model: str) -> str | None:
        """The last error, if no URL takes calls for this model; None if one does."""
        breakers = [endpoint.breakers[model] for endpoint in self._all]
        if any(breaker.failures == 0 for breaker in breakers):
            return None
        return breakers[-1].last_error

    def is_given_up(self, model: str, since: float) -> bool:
        """Whether every URL has failed for so long that who waits since then should wait no more.

        A backend that is merely busy is never given up.
        """
        breakers = [endpoint.breakers[model] for endpoint in self._all]
        if any(breaker.failures == 0 for breaker in breakers):
            return False
        down_since = max(breaker.failing_since for breaker in breakers)
        return time.monotonic() - max(down_since, since) >= self._patience

    async def wait_for_room(self, model: str, deadline: Deadline, since: float) -> None:
        """Returns once some URL takes a call.

        Raises:
            BackendUnavailable: None did until the deadline, or all are given up.
        """
        await self._room(model, deadline, since)

    def slots(self, model: str) -> int:
        """How many calls run at once, when all do."""
        return sum(int(endpoint.limit.value) for endpoint in self._all if endpoint.breakers[model].lets_pass)

    async def _room(
        self, model: str, deadline: Deadline, since: float, avoid: frozenset[str] = frozenset()
    ) -> Endpoint:
        while (endpoint := self._best(model, avoid)) is None:
            if deadline.remaining <= 0 or self.is_given_up(model, since):
                reason = self.down_because(model) or "all servers are busy"
                raise BackendUnavailable(f"no backend takes {model!r}: {reason}")
            await self._wait(min(RECHECK, deadline.remaining))
        return endpoint

    @asynccontextmanager
    async def call(
        self, model: str, *, tokens: int, texts: int, deadline: Deadline, since: float, avoid: frozenset[str]
    ) -> AsyncIterator[str]:
        """The URL for one call, one not in `avoid` if possible; how the block ends tells limit and breaker."""
        endpoint = await self._room(model, deadline, since, avoid)
        breaker, started = endpoint.breakers[model], time.monotonic()
        endpoint.limit.started()
        if breaker.started():
            self._count_change("half_open")
        endpoint.outstanding_tokens += tokens
        outcome = "ok"
        try:
            yield endpoint.url
        except CitadelError as error:
            outcome = error.code
            self._conclude(endpoint, model, error)
            raise
        except BaseException:
            outcome = "abandoned"
            endpoint.limit.abandoned()
            breaker.abandoned()
            raise
        else:
            endpoint.limit.succeeded(seconds=time.monotonic() - started, texts=texts)
            self._closed(endpoint, model)
        finally:
            endpoint.outstanding_tokens -= tokens
            self._metrics.count(names.BACKEND_REQUESTS, 1, backend=self.name, outcome=outcome)
            self._metrics.observe(names.BACKEND_SECONDS, time.monotonic() - started, backend=self.name)
            self._metrics.observe(names.BACKEND_TEXTS, texts, backend=self.name)
            await self._notify()

    def _best(self, model: str, avoid: frozenset[str]) -> Endpoint | None:
        usable = (e for e in self._all if e.limit.has_room and e.breakers[model].lets_pass)
        return min(
            usable, key=lambda e: (e.url in avoid, e.breakers[model].failures, e.outstanding_tokens), default=None
        )

    def _conclude(self, endpoint: Endpoint, model: str, error: CitadelError) -> None:
        """Refused texts prove that the server is alive; all else but our own haste counts against it."""
        if isinstance(error, DeadlineExceeded):
            endpoint.limit.abandoned()
            endpoint.breakers[model].abandoned()
            return
        if not error.transient and not isinstance(error, UnknownModel):
            endpoint.limit.abandoned()
            self._closed(endpoint, model)
            return
        endpoint.limit.failed()
        breaker = endpoint.breakers[model]
        before = breaker.state
        breaker.failed(error.message)
        if breaker.state != before:
            self._count_change(breaker.state)
            # not its message: servers repeat what they were sent
            kind = type(error).__name__
            log.warning("breaker_opened", backend=self.name, url=endpoint.url, model=model, error=kind)

    def _closed(self, endpoint: Endpoint, model: str) -> None:
        breaker = endpoint.breakers[model]
        before = breaker.state
        breaker.succeeded()
        if before != "closed":
            self._count_change("closed")
            log.info("breaker_closed", backend=self.name, url=endpoint.url, model=model)

    def _count_change(self, state: State) -> None:
        self._metrics.count(names.BREAKER_CHANGES, 1, backend=self.name, state=state)
        self._tell_open()

    def _tell_open(self) -> None:
        breakers = (breaker for endpoint in self._all for breaker in endpoint.breakers.values())
        count = sum(breaker.state != "closed" for breaker in breakers)
        self._metrics.set(names.BREAKERS_OPEN, count, backend=self.name)

    async def _wait(self, seconds: float) -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
