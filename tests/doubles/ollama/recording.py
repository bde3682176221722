"""Record of embedding requests."""

from collections import Counter
from typing import Any

from tests.doubles.base.recording import Recording
from tests.doubles.ollama.requests import EmbedRequest


class OllamaRecording(Recording):
    """Counts of requests and texts; a text is counted when it is received, and when it is embedded (answered with 200).

    Args:
        track_texts: Distinct texts of a model that are counted one by one.
    """

    def __init__(self, track_texts: int) -> None:
        self._track_texts = track_texts
        super().__init__()

    def reset(self) -> None:
        """Count from 0; the requests in flight stay in flight."""
        super().reset()
        self.batch_sizes: Counter[int] = Counter()
        self.texts_received = 0
        self.texts_embedded = 0
        self.texts_untracked = 0
        self.received: dict[str, Counter[str]] = {}
        self.embedded: dict[str, Counter[str]] = {}
        self.max_running = 0

    def count_received(self, path: str, request: EmbedRequest) -> None:
        """Count a readable request."""
        size = len(request.texts)
        self.batch_sizes[size] += 1
        self.texts_received += size
        self._count(self.received, request)
        self.recent.append({"path": path, "texts": size} | dict(request.payload))

    def count_embedded(self, request: EmbedRequest) -> None:
        """Count the texts of a request that gets its vectors."""
        self.texts_embedded += len(request.texts)
        self._count(self.embedded, request)

    def _count(self, counts: dict[str, Counter[str]], request: EmbedRequest) -> None:
        counter = counts.setdefault(request.spec.name, Counter())
        if len(counter) < self._track_texts:
            counter.update(request.texts)
        elif counts is self.received:
            self.texts_untracked += len(request.texts)

    def snapshot(self, *, text_counts: bool = True) -> dict[str, Any]:
        """Return the counts as JSON values."""
        numbers = ("texts_received", "texts_embedded", "texts_untracked", "max_running")
        counts = {"received_counts": self.received, "embedded_counts": self.embedded} if text_counts else {}
        return {
            **super().snapshot(),
            **{name: getattr(self, name) for name in numbers},
            "distinct_texts": sum(map(len, self.received.values())),
            "max_text_count": _highest(self.received),
            "max_embedded_count": _highest(self.embedded),
            "batch_sizes": {str(size): count for size, count in self.batch_sizes.items()},
            **counts,
        }


def _highest(counts: dict[str, Counter[str]]) -> int:
    return max((max(counter.values(), default=0) for counter in counts.values()), default=0)
