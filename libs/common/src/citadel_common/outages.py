"""Outages of outside servers, which calls wait out in place.

A server that restarts is away for some seconds. A call that finds it away is repeated until the server is back, the
caller's patience is over, or the call's deadline is near. While a server is away, one call at a time knocks; the others
sleep, and once it answers they go on one after the other, so that a thousand of them do not meet it at once.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import structlog

from citadel_common.backoff import full_jitter
from citadel_common.breaker import Breaker, State
from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError, DeadlineExceeded, from_data
from citadel_common.tasks.failure_policy import HandBack
from citadel_common.telemetry import NULL_METRICS, Metrics, names

T = TypeVar("T")
log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.1
"""Seconds before the first repetition at most; each further pause may be twice as long."""
LONGEST_PAUSE = 4.0
"""Seconds between two looks for a server that is away."""
RELEASES_PER_SECOND = 200
"""Waiting calls that go on per second once the server is back."""
MARGIN = 0.08
"""Seconds before its deadline at which a call gives up, so that the caller hears of the outage itself."""


class Outage(Exception):
    """A call met no server that could answer it: a repetition cannot do anything twice that must be done once.

    Args:
        error: The error of the call if the server does not come back in time.
    """

    def __init__(self, error: CitadelError) -> None:
        super().__init__(error.message)
        self.error = error


class Server:
    """One outside server, as a process sees it; belongs to one event loop. Made by `Outages.server`."""

    def __init__(self, name: str, patience: float, metrics: Metrics, longest_pause: float) -> None:
        self._name = name
        self._patience = patience
        self._metrics = metrics
        self._longest_pause = longest_pause
        self._breaker = Breaker(longest_pause=longest_pause, clock=lambda: asyncio.get_running_loop().time())
        self._last = CitadelError()
        self._waiting = 0
        self._release_over = 0.0
        self._stopping = False
        self._changed = asyncio.Event()
        metrics.set(names.BREAKERS_OPEN, 0, backend=name)
        metrics.set(names.CALLS_HELD, 0, server=name)

    async def call(self, attempt: Callable[[], Awaitable[T]], deadline: Deadline | None = None) -> T:
        """Return the result of a call, repeated while its server is away.

        Args:
            attempt: Makes the call; raises `Outage` if the server is away, and may be called many times. Any other
                CitadelError proves that the server is there.
            deadline: When the call must have ended.

        Raises:
            CitadelError: Of the last outage if the server did not come back in time; any that `attempt` raises.
            HandBack: The server is away, and this process is stopping.
        """
        limit: Deadline | None = None
        error: CitadelError | None = None
        tries = 0
        while True:
            if not self._breaker.lets_pass or error is not None:
                limit = limit or self._limit(deadline)
                await self._hold(tries, limit, error)
            try:
                return await self._try(attempt)
            except Outage as outage:
                error, tries = outage.error, tries + 1

    def answers(self) -> None:
        """Record that the server answers: for calls that go on for long after the first sign of it."""
        before = self._breaker.state
        self._breaker.succeeded()
        if before == "closed":
            return
        self._release_over = self._waiting / RELEASES_PER_SECOND
        log.info("outage_ended", server=self._name, waiting=self._waiting)
        self._changed_to("closed")

    def stop(self) -> None:
        """End the waiting of all calls, now and later, by `HandBack`: the process is stopping."""
        self._stopping = True
        self._notify()

    async def _try(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make one call, and let its end move the breaker."""
        is_probe = self._breaker.started()
        if is_probe:
            self._changed_to("half_open")
        try:
            result = await attempt()
        except Outage as outage:
            self._failed(outage.error, is_probe=is_probe)
            raise
        except DeadlineExceeded:
            self._abandoned(is_probe=is_probe)
            raise
        except CitadelError:
            self.answers()
            raise
        except BaseException:
            self._abandoned(is_probe=is_probe)
            raise
        self.answers()
        return result

    def _failed(self, error: CitadelError, *, is_probe: bool) -> None:
        """Count an outage; calls that began before the breaker opened say nothing new."""
        before = self._breaker.state
        if before != "closed" and not is_probe:
            return
        self._last = error
        # the kind and not the message: servers repeat what they were sent
        self._breaker.failed(type(error).__name__)
        if self._breaker.state == before:
            return
        if before == "closed":
            log.warning("outage_began", server=self._name, error=self._breaker.last_error)
        self._changed_to("open")

    def _abandoned(self, *, is_probe: bool) -> None:
        if is_probe:
            self._breaker.abandoned()
            self._notify()

    async def _hold(self, tries: int, limit: Deadline, error: CitadelError | None) -> None:
        """Wait until a call may start.

        Raises:
            CitadelError: The limit has passed first.
            HandBack: This process is stopping.
        """
        outcome: Literal["resumed", "given_up", "handed_back", "abandoned"] = "abandoned"
        self._count_waiting(1)
        try:
            resumed = await self._may_start(tries, limit)
            outcome = "resumed" if resumed else "given_up"
        except HandBack:
            outcome = "handed_back"
            raise
        finally:
            self._count_waiting(-1)
            self._metrics.count(names.HOLDS, server=self._name, outcome=outcome)
        if not resumed:
            raise error or self._latest()

    async def _may_start(self, tries: int, limit: Deadline) -> bool:
        """Wait until a call may start; return False if the limit passes while the server is away."""
        if self._breaker.state == "closed":
            await self._wait(full_jitter(tries, base=FIRST_PAUSE, factor=2.0, cap=self._longest_pause), limit)
            if limit.remaining <= 0:
                return False
        was_away = False
        while True:
            if not self._breaker.lets_pass:
                if limit.remaining <= 0:
                    return False
                was_away = True
                await self._wait(self._until_probe(), limit)
            elif self._breaker.state == "half_open" or not was_away or await self._wait(self._turn(), limit):
                return True

    def _until_probe(self) -> float:
        """Return the seconds until the next probe may pass; a probe that is under way tells its end by itself."""
        if self._breaker.probing:
            return self._longest_pause
        left = self._breaker.open_until - asyncio.get_running_loop().time()
        return max(0.0, left) + random.uniform(0.01, 0.05 + left / 10)  # noqa: S311  (spreads the processes)

    def _turn(self) -> float:
        """Return the seconds after which a waiting call goes on once the server is back."""
        return random.uniform(0.0, self._release_over)  # noqa: S311  (spreads the calls)

    async def _wait(self, seconds: float, limit: Deadline) -> bool:
        """Wait until the state changes; return True if it did not.

        Raises:
            HandBack: This process is stopping.
        """
        if self._stopping:
            raise HandBack
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(seconds, limit.remaining))):
                await self._changed.wait()
                if self._stopping:
                    raise HandBack
                return False
        return True

    def _limit(self, deadline: Deadline | None) -> Deadline:
        end = Deadline.after(self._patience)
        return end if deadline is None else Deadline(min(end.at, deadline.at - MARGIN))

    def _latest(self) -> CitadelError:
        """Return the last outage's error for one more caller: a raised error keeps the frames of all who raise it."""
        return from_data(self._last.data)

    def _changed_to(self, state: State) -> None:
        self._metrics.count(names.BREAKER_CHANGES, backend=self._name, state=state)
        self._metrics.set(names.BREAKERS_OPEN, float(state != "closed"), backend=self._name)
        self._notify()

    def _count_waiting(self, change: int) -> None:
        self._waiting += change
        self._metrics.set(names.CALLS_HELD, self._waiting, server=self._name)

    def _notify(self) -> None:
        """Wake all who wait; whoever comes later waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()


class Outages:
    """The outside servers of a process.

    Args:
        metrics: Where breakers and waiting calls are counted.
        longest_pause: Seconds between two looks for a server that is away, at most.
    """

    def __init__(self, metrics: Metrics = NULL_METRICS, *, longest_pause: float = LONGEST_PAUSE) -> None:
        self._metrics = metrics
        self._longest_pause = longest_pause
        self._servers: dict[str, Server] = {}

    def server(self, name: str, *, patience: float) -> Server:
        """Return the server of a name, made at the first call.

        Args:
            name: Name in metrics and logs.
            patience: Seconds that a call waits for the server to come back.
        """
        if name not in self._servers:
            self._servers[name] = Server(name, patience, self._metrics, self._longest_pause)
        return self._servers[name]

    def stop(self) -> None:
        """Let calls that wait for a server end by `HandBack`; belongs to the event loop of the calls."""
        for server in self._servers.values():
            server.stop()
