"""The endpoints of one backend: which URL takes the next call.

The URL with the least outstanding tokens goes first; one whose breaker is open or whose limit is reached takes none.
Callers wait until some URL has room.
"""

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from citadel_common.breaker import Breaker, State
from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable, CitadelError, DeadlineExceeded, UnknownModel
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.telemetry import Metrics, names
from citadel_contracts.outbound import shown
from citadel_embeddings.backends.base import Backend, ModelChanged, ServerFailed, TextTooLong
from citadel_embeddings.backends.versions import ModelVersions
from citadel_embeddings.endpoints.blame import find_blame
from citadel_embeddings.endpoints.call import call_backend
from citadel_embeddings.endpoints.limiter import AdaptiveLimit
from citadel_embeddings.items import Batch, TextResult

log = structlog.get_logger(__name__)
RECHECK = 0.1
"""Seconds after which waiting callers look again for a breaker that has become half open."""


@dataclass
class Endpoint:
    """One URL.

    Attributes:
        url: The URL.
        limit: Of the calls at once.
        breakers: By model.
        reserved: Slots whose call has not begun.
        outstanding_tokens: Estimated tokens of the calls under way.
    """

    url: str
    limit: AdaptiveLimit
    breakers: defaultdict[str, Breaker]
    reserved: int = 0
    outstanding_tokens: int = 0

    def takes(self, model: str) -> bool:
        """Return whether a slot for a call may be taken now."""
        return self.limit.in_flight + self.reserved < int(self.limit.value) and self.breakers[model].lets_pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Room for one call; taken by `EndpointPool.acquire`, given back by `embed` or `release`."""

    endpoint: Endpoint
    breaker: Breaker
    model: str

    @property
    def url(self) -> str:
        """The URL to call."""
        return self.endpoint.url


class EndpointPool:
    """All URLs of one backend; belongs to one event loop.

    Args:
        name: Name of the backend, for metrics and logs.
        backend: The protocol.
        settings: URLs, concurrency, timeout, longest pause of a breaker.
        patience: Seconds that a text waits for a backend that is down.
        metrics: Where calls and breakers are counted.
        versions: Versions of the models; None if the protocol names none.
        clock: The monotonic clock.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        settings: BackendSettings,
        *,
        patience: float,
        metrics: Metrics,
        versions: ModelVersions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._backend = backend
        self._timeout = settings.timeout
        self._patience = patience
        new_breaker = functools.partial(Breaker, longest_pause=settings.longest_pause, clock=clock)
        most = settings.max_concurrency
        first = float(min(settings.concurrency, most))
        self._endpoints = [Endpoint(url, AdaptiveLimit(first, most), defaultdict(new_breaker)) for url in settings.urls]
        self._metrics = metrics
        self._versions = versions
        self._clock = clock
        self._changed = asyncio.Event()
        self._limits: dict[str, int] = {}
        self._set_open_gauge()

    @property
    def urls(self) -> list[str]:
        """The URLs."""
        return [endpoint.url for endpoint in self._endpoints]

    @property
    def calls_in_flight(self) -> int:
        """Calls under way."""
        return sum(endpoint.limit.in_flight for endpoint in self._endpoints)

    @property
    def concurrency(self) -> int:
        """Calls that may run at once now, as the URLs' limits have adapted."""
        return sum(int(endpoint.limit.value) for endpoint in self._endpoints)

    def most_calls(self, slot: Slot) -> int:
        """Return how many calls for the model of a slot may run at once now, the slot's own included."""
        usable = (e for e in self._endpoints if e is slot.endpoint or e.breakers[slot.model].lets_pass)
        return sum(int(endpoint.limit.value) for endpoint in usable)

    def is_given_up(self, model: str, since: float) -> bool:
        """Return whether every URL has failed for longer than the patience of a caller who waits since then.

        A backend that is merely busy is never given up.
        """
        breakers = [endpoint.breakers[model] for endpoint in self._endpoints]
        if any(breaker.failures == 0 for breaker in breakers):
            return False
        down_since = max(breaker.failing_since for breaker in breakers)
        return self._clock() - max(down_since, since) >= self._patience

    async def acquire(
        self,
        model: str,
        deadline: Deadline,
        *,
        since: float,
        version: str | None = None,
        avoid: frozenset[str] = frozenset(),
        spare_until: float = 0.0,
    ) -> Slot:
        """Wait until a URL has room for a call, and take it; URLs in `avoid` only if there is no other.

        Until `spare_until` the last of several URLs that is alive is left to others. URLs with another version of the
        model than `version` take no call.

        Raises:
            ModelChanged: No URL has that version any more.
            BackendUnavailable: None had room until the deadline, or the backend is given up.
        """
        while (endpoint := self._best(model, version, avoid, spare_until)) is None:
            if not any(self._has(endpoint, model, version) for endpoint in self._endpoints):
                raise ModelChanged(f"no server has {model!r} in version {version!r} any more; try again")
            if deadline.remaining <= 0 or self.is_given_up(model, since):
                reason = self._down_because(model) or "all servers are busy"
                raise BackendUnavailable(f"no backend takes {model!r}: {reason}")
            await self._wait(min(RECHECK, deadline.remaining))
        slot = Slot(endpoint=endpoint, breaker=endpoint.breakers[model], model=model)
        endpoint.reserved += 1
        if slot.breaker.started():
            self._count_change("half_open")
        return slot

    def release(self, slot: Slot) -> None:
        """Give an unused slot back."""
        slot.endpoint.reserved -= 1
        slot.breaker.abandoned()
        self._notify()

    async def embed(self, slot: Slot, batch: Batch, deadline: Deadline) -> list[TextResult]:
        """Call the slot's URL and give the slot back; see `call_backend`."""
        with self._judged(slot, batch):
            try:
                return await call_backend(
                    self._backend, slot.url, batch, deadline, timeout=self._timeout, versions=self._versions
                )
            except ServerFailed as error:
                error.blame = await find_blame(self._backend, slot.url, batch.key, timeout=self._timeout)
                raise

    def is_overlong(self, model: str, tokens: int) -> bool:
        """Return whether a text of so many tokens is over the limit that a server has told."""
        return tokens > self._limits.get(model, tokens)

    @contextmanager
    def _judged(self, slot: Slot, batch: Batch) -> Iterator[None]:
        """Let the way a call ends adapt the limit and the breaker."""
        started, texts, tokens, outcome = self._clock(), len(batch.items), batch.tokens, "ok"
        slot.endpoint.reserved -= 1
        slot.endpoint.limit.started()
        slot.endpoint.outstanding_tokens += tokens
        try:
            yield
        except CitadelError as error:
            outcome = error.code
            self._failed(slot, error)
            raise
        except BaseException:
            outcome = "abandoned"
            slot.endpoint.limit.abandoned()
            slot.breaker.abandoned()
            raise
        else:
            slot.endpoint.limit.succeeded(seconds=self._clock() - started, texts=texts)
            self._is_alive(slot)
        finally:
            slot.endpoint.outstanding_tokens -= tokens
            self._metrics.count(names.BACKEND_REQUESTS, 1, backend=self._name, outcome=outcome)
            self._metrics.observe(names.BACKEND_SECONDS, self._clock() - started, backend=self._name)
            self._metrics.observe(names.BACKEND_TEXTS, texts, backend=self._name)
            self._notify()

    def _failed(self, slot: Slot, error: CitadelError) -> None:
        """Count an error against the server, unless it proves that the server is alive or was not given its time."""
        if isinstance(error, DeadlineExceeded):
            slot.endpoint.limit.abandoned()
            slot.breaker.abandoned()
            return
        if isinstance(error, TextTooLong) and error.limit is not None:
            self._limits[slot.model] = error.limit
        is_sound = isinstance(error, ModelChanged) or (isinstance(error, ServerFailed) and error.blame == "texts")
        if is_sound or (not error.retryable and not isinstance(error, UnknownModel)):
            is_busy = isinstance(error, ServerFailed) and error.is_busy
            (slot.endpoint.limit.failed if is_busy else slot.endpoint.limit.abandoned)()
            self._is_alive(slot)
            return
        slot.endpoint.limit.failed()
        before = slot.breaker.state
        slot.breaker.failed(error.message)
        if slot.breaker.state != before:
            self._count_change(slot.breaker.state)
            # the kind and not the message: servers repeat what they were sent
            kind = type(error).__name__
            log.warning("breaker_opened", backend=self._name, url=shown(slot.url), model=slot.model, error=kind)

    def _is_alive(self, slot: Slot) -> None:
        """Close the breaker."""
        before = slot.breaker.state
        slot.breaker.succeeded()
        if before != "closed":
            self._count_change("closed")
            log.info("breaker_closed", backend=self._name, url=shown(slot.url), model=slot.model)

    def _has(self, endpoint: Endpoint, model: str, version: str | None) -> bool:
        return self._versions is None or self._versions.may_serve(endpoint.url, model, version)

    def _best(self, model: str, version: str | None, avoid: frozenset[str], spare_until: float) -> Endpoint | None:
        spared = self._last_alive(model) if spare_until and self._clock() < spare_until else None
        usable = (e for e in self._endpoints if e.takes(model) and e is not spared and self._has(e, model, version))
        return min(
            usable, key=lambda e: (e.url in avoid, e.breakers[model].failures, e.outstanding_tokens), default=None
        )

    def _last_alive(self, model: str) -> Endpoint | None:
        """Return the only one of several URLs that does not fail; None if there are others or none."""
        alive = [endpoint for endpoint in self._endpoints if endpoint.breakers[model].failures == 0]
        return alive[0] if len(alive) == 1 and len(self._endpoints) > 1 else None

    def _down_because(self, model: str) -> str | None:
        """Return the last error if no URL takes calls for this model; None if one does."""
        breakers = [endpoint.breakers[model] for endpoint in self._endpoints]
        return None if any(breaker.failures == 0 for breaker in breakers) else breakers[-1].last_error

    def _count_change(self, state: State) -> None:
        self._metrics.count(names.BREAKER_CHANGES, 1, backend=self._name, state=state)
        self._set_open_gauge()

    def _set_open_gauge(self) -> None:
        breakers = (breaker for endpoint in self._endpoints for breaker in endpoint.breakers.values())
        count = sum(breaker.state != "closed" for breaker in breakers)
        self._metrics.set(names.BREAKERS_OPEN, count, backend=self._name)

    async def _wait(self, seconds: float) -> None:
        """Wait until a slot comes back."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _notify(self) -> None:
        """Wake all who wait; whoever comes later waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()
