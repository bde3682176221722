"""What the double has seen, for tests to assert on. Everything it keeps is bounded."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from tests.doubles.caller import Scope
from tests.doubles.calls import Call

RECENT = 200


class Tally:
    """Counts of embedding requests; texts are counted as received and as embedded (answered with 200)."""

    def __init__(self, track_texts: int) -> None:
        self._track_texts = track_texts
        self.reset()

    def reset(self) -> None:
        """Count from 0; the requests in flight stay in flight."""
        self.requests = 0
        self.abandoned = 0
        self.hung_up = 0
        self.other_requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.batch_sizes: Counter[int] = Counter()
        self.texts_received = 0
        self.texts_embedded = 0
        self.texts_untracked = 0
        self.received: dict[str, Counter[str]] = {}
        self.embedded: dict[str, Counter[str]] = {}
        self.max_running = 0
        self.max_in_flight = 0
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.last_headers: Sequence[tuple[bytes, bytes]] = ()

    def received_call(self, scope: Scope, call: Call) -> None:
        """Count a readable request."""
        size = len(call.texts)
        self.batch_sizes[size] += 1
        self.texts_received += size
        self._count(self.received, call)
        self.last_headers = scope["headers"]
        self.recent.append({"path": scope["path"], "texts": size} | dict(call.payload))

    def embedded_call(self, call: Call) -> None:
        """Count the texts of a request that gets its vectors."""
        self.texts_embedded += len(call.texts)
        self._count(self.embedded, call)

    def _count(self, counts: dict[str, Counter[str]], call: Call) -> None:
        counter = counts.setdefault(call.spec.name, Counter())
        if len(counter) < self._track_texts:
            counter.update(call.texts)
        elif counts is self.received:
            self.texts_untracked += len(call.texts)

    def snapshot(self, *, text_counts: bool) -> dict[str, Any]:
        """Return the counts as JSON values."""
        counts = {"received_counts": self.received, "embedded_counts": self.embedded}
        numbers = ("requests", "abandoned", "hung_up", "texts_received", "texts_embedded", "texts_untracked")
        return {
            **{name: getattr(self, name) for name in numbers},
            "distinct_texts": sum(map(len, self.received.values())),
            "max_text_count": _highest(self.received),
            "max_embedded_count": _highest(self.embedded),
            "max_running": self.max_running,
            "max_in_flight": self.max_in_flight,
            "other_requests": self.other_requests,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "batch_sizes": {str(size): count for size, count in self.batch_sizes.items()},
            "recent": list(self.recent),
            "last_headers": {str(name, "latin-1"): str(value, "latin-1") for name, value in self.last_headers},
            **(counts if text_counts else {}),
        }


def _highest(counts: dict[str, Counter[str]]) -> int:
    return max((max(counter.values(), default=0) for counter in counts.values()), default=0)
