"""Adaptive concurrency: how many calls one URL takes at once, learned from latency and errors.

Embedding servers seldom say that they are full (Ollama queues without bound), so rising latency is the sign.
A latency is compared with the best one seen for calls of about the same number of texts.
"""

from dataclasses import dataclass, field

TOLERANCE = 2.5
"""How much slower than the best a call may be before the limit shrinks."""
SLACK = 0.05
"""Seconds that a busy machine may add to a call by itself; a call that is no slower says nothing about the server."""
FORGETTING = 1.002
"""Growth of the remembered best latency per call, so that the limit adapts to a changed server."""
SHRINK_SLOW = 0.9
SHRINK_FAILED = 0.5


@dataclass
class AdaptiveLimit:
    """Limit of the calls to one URL: additive increase, multiplicative decrease.

    Attributes:
        value: The limit; its whole part counts.
        maximum: Upper bound of the limit.
        in_flight: Calls now under way.
    """

    value: float
    maximum: int
    in_flight: int = 0
    _best: dict[int, float] = field(default_factory=dict)
    _until_next_shrink: int = 0

    def started(self) -> None:
        """Count the start of a call."""
        self.in_flight += 1

    def succeeded(self, *, seconds: float, texts: int) -> None:
        """Count the answer of a call and adapt; `seconds` is its latency."""
        was_full = self.in_flight >= int(self.value)
        self.in_flight -= 1
        self._until_next_shrink -= 1
        best = self._best_for(texts, seconds / max(texts, 1)) * max(texts, 1)
        if seconds > TOLERANCE * best + SLACK:
            self._shrink(SHRINK_SLOW)
        elif was_full:
            self.value = min(float(self.maximum), self.value + 1 / self.value)

    def failed(self) -> None:
        """Count a call without a usable answer, and shrink."""
        self.in_flight -= 1
        self._until_next_shrink -= 1
        self._shrink(SHRINK_FAILED)

    def abandoned(self) -> None:
        """Count the end of a call that says nothing about the server."""
        self.in_flight -= 1

    def _best_for(self, texts: int, per_text: float) -> float:
        bucket = texts.bit_length()
        best = min(per_text, self._best.get(bucket, per_text) * FORGETTING)
        self._best[bucket] = best
        return best

    def _shrink(self, factor: float) -> None:
        """Shrink at most once per round of calls: those in flight were started under the old limit."""
        if self._until_next_shrink > 0:
            return
        self.value = max(1.0, self.value * factor)
        self._until_next_shrink = self.in_flight + 1
