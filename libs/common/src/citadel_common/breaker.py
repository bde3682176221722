"""Circuit breaker: a server that keeps failing is left alone for a while, then tried with one call."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FAILURES = 3
"""Failures in a row that open a breaker."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds that an open breaker lets no call pass: at first, and at most."""

State = Literal["closed", "open", "half_open"]


@dataclass
class Breaker:
    """State of one server, or of one model of it; times in seconds on the monotonic clock.

    Attributes:
        clock: The clock.
        longest_pause: Most seconds that it stays open before a probe.
        failures: Failures in a row.
        failing_since: When the first of them happened.
        open_until: When the next probe may pass.
        pause: How long it will be open the next time.
        probing: Whether a probe is under way.
        last_error: Message of the last failure.
    """

    clock: Callable[[], float] = time.monotonic
    longest_pause: float = LONGEST_PAUSE
    failures: int = 0
    failing_since: float = 0.0
    open_until: float = 0.0
    pause: float = FIRST_PAUSE
    probing: bool = False
    last_error: str = ""

    @property
    def state(self) -> State:
        """`closed`: calls pass; `half_open`: one probe may pass; `open`: none may."""
        if self.failures < FAILURES:
            return "closed"
        return "open" if self.clock() < self.open_until else "half_open"

    @property
    def lets_pass(self) -> bool:
        """Return whether a call may start now."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self.probing)

    def started(self) -> bool:
        """Record the start of a call; return whether it is the probe, the first call while half open."""
        is_probe = self.state == "half_open" and not self.probing
        self.probing = self.probing or is_probe
        return is_probe

    def succeeded(self) -> None:
        """Record an answer and close."""
        self.failures, self.pause, self.probing, self.last_error = 0, FIRST_PAUSE, False, ""

    def failed(self, error: str) -> None:
        """Count a failure; open at the limit or after a failed probe, each time for longer."""
        was_probe, self.probing = self.probing, False
        if not self.failures:
            self.failing_since = self.clock()
        self.failures += 1
        self.last_error = error
        if self.failures == FAILURES or was_probe:
            self.open_until = self.clock() + min(self.pause, self.longest_pause)
            self.pause = min(self.pause * 2, self.longest_pause)

    def abandoned(self) -> None:
        """Record the end of a call that says nothing about the server."""
        self.probing = False
