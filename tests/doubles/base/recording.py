"""Record of the requests that a double has seen, for tests to assert on. Everything it keeps is bounded."""

import contextlib
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from tests.doubles.base.caller import Caller

RECENT = 200


class Recording:
    """Counts of requests to the main routes, and of those to all others by path."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Count from 0; the requests in flight stay in flight."""
        self.requests = 0
        self.abandoned = 0
        self.hung_up = 0
        self.max_in_flight = self.in_flight
        self.other_requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.last_headers: list[tuple[bytes, bytes]] = []

    @contextlib.contextmanager
    def under_way(self, caller: Caller) -> Iterator[None]:
        """Count a request to a main route while the block answers it."""
        self.requests += 1
        self.last_headers = caller.scope["headers"]
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    def snapshot(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        numbers = ("requests", "in_flight", "max_in_flight", "abandoned", "hung_up", "other_requests")
        return {
            **{name: getattr(self, name) for name in numbers},
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "recent": list(self.recent),
            "last_headers": {str(name, "latin-1"): str(value, "latin-1") for name, value in self.last_headers},
        }
