"""Circuit breaker: a server that keeps failing is left alone for a while, then tried with one call."""

import time
from dataclasses import dataclass
from typing import Literal

FAILURES = 3
"""Failures in a row that open it."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0

State = Literal["closed", "open", "half_open"]


@dataclass
class Breaker:
    """State of one (URL, model); times on the monotonic clock."""

    failures: int = 0
    failing_since: float = 0.0
    open_until: float = 0.0
    longest_pause: float = LONGEST_PAUSE
    pause: float = FIRST_PAUSE
    probing: bool = False
    last_error: str = ""

    @property
    def state(self) -> State:
        """closed: calls pass; half_open: one probe may pass; open: none."""
        if self.failures < FAILURES:
            return "closed"
        return "open" if time.monotonic() < self.open_until else "half_open"

    @property
    def lets_pass(self) -> bool:
        """Whether a call may start now."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self.probing)

    def started(self) -> bool:
        """Notes a call's start; whether it is the probe, which is the first one while half open."""
        is_probe = self.state == "half_open" and not self.probing
        self.probing = self.probing or is_probe
        return is_probe

    def succeeded(self) -> None:
        """Closes it."""
        self.failures, self.pause, self.probing, self.last_error = 0, FIRST_PAUSE, False, ""

    def failed(self, error: str) -> None:
        """Counts a failure; at the limit it opens, each time for longer."""
        was_probe, self.probing = self.probing, False
        if not self.failures:
            self.failing_since = time.monotonic()
        self.failures += 1
        self.last_error = error
        if self.failures == FAILURES or was_probe:
            self.open_until = time.monotonic() + min(self.pause, self.longest_pause)
            self.pause = min(self.pause * 2, self.longest_pause)

    def abandoned(self) -> None:
        """Notes a call that says nothing about the server."""
        self.probing = False
