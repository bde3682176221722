"""Counters of one run of a maintenance task."""

from dataclasses import dataclass, field

from citadel_contracts.maintenance import CleanupCounts


def _zero() -> CleanupCounts:
    return {"examined": 0, "removed": 0, "repaired": 0, "bytes_freed": 0}


@dataclass
class Counters:
    """Counts by kind, and in all.

    Attributes:
        examined: Entries, keys or rows examined in all, those that need nothing included.
        kinds: Counts of the findings of each kind.
        notes: Sentences for the operator.
    """

    examined: int = 0
    kinds: dict[str, CleanupCounts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, *, found: int = 1, removed: int = 0, repaired: int = 0, bytes_freed: int = 0) -> None:
        """Count findings of a kind, and what was done about them."""
        counts = self.kinds.setdefault(kind, _zero())
        counts["examined"] += found
        counts["removed"] += removed
        counts["repaired"] += repaired
        counts["bytes_freed"] += bytes_freed

    def total(self) -> CleanupCounts:
        """Return the sums over all kinds, with `examined` in all."""
        kinds = self.kinds.values()
        return {
            "examined": self.examined,
            "removed": sum(counts["removed"] for counts in kinds),
            "repaired": sum(counts["repaired"] for counts in kinds),
            "bytes_freed": sum(counts["bytes_freed"] for counts in kinds),
        }
