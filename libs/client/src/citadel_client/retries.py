"""When a failed call is tried again, and after how long."""

import random
from dataclasses import dataclass

from citadel_client.errors import CitadelApiError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential delays with full jitter; what the server asks for comes first.

    Attributes:
        attempts: Times a call is made at most.
        base: Upper limit of the first delay, in seconds; it doubles each time.
        cap: Upper limit of any delay of the policy's own, in seconds.
    """

    attempts: int = 6
    base: float = 0.25
    cap: float = 8.0

    def delay(self, made: int, error: CitadelApiError) -> float | None:
        """Seconds to wait after `made` attempts; None where another attempt is of no use."""
        if not error.retryable or made >= self.attempts:
            return None
        if error.retry_after is not None:
            return error.retry_after
        return random.uniform(0.0, min(self.cap, self.base * 2 ** (made - 1)))  # noqa: S311  (jitter)


NEVER = RetryPolicy(attempts=1)
"""For callers that want to know the state of things now."""
