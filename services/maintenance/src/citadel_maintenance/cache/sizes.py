"""Estimated sizes of cache entries by group, and how cold the entries are."""

from dataclasses import dataclass, field
from typing import Any, Self

from citadel_contracts.maintenance import CacheStatistics, ModelEntries

MOST_GROUPS = 1000
OTHERS = "other own"
Bucket = int


@dataclass
class Group:
    """Entries of one model and dimensions."""

    entries: int = 0
    samples: int = 0
    sampled_bytes: int = 0

    @property
    def mean(self) -> float:
        """Mean bytes of an entry; 0 without a sample."""
        return self.sampled_bytes / self.samples if self.samples else 0.0


@dataclass
class Sizes:
    """Sizes and coldness of the entries seen so far. They are saved with the cursor, so they are bounded.

    Attributes:
        kept: Entries that stay, by group.
        coldness: Number of the entries that stay, by bucket and group; higher buckets are colder.
    """

    kept: dict[str, Group] = field(default_factory=dict)
    coldness: dict[Bucket, dict[str, int]] = field(default_factory=dict)
    _measured: dict[str, Group] = field(default_factory=dict)

    def add_sample(self, group: str, size: int) -> None:
        """Record the measured size of one entry, whether it stays or goes."""
        known = self._of(self._measured, group)
        known.samples += 1
        known.sampled_bytes += size

    def mean(self, group: str) -> float:
        """Return the mean bytes of an entry of a group."""
        return self._of(self._measured, group).mean

    def add_kept(self, group: str, bucket: Bucket | None) -> None:
        """Count an entry that stays."""
        self._of(self.kept, group).entries += 1
        if bucket is not None:
            name = group if group in self.kept else OTHERS
            row = self.coldness.setdefault(bucket, {})
            row[name] = row.get(name, 0) + 1

    def evicted(self, group: str) -> None:
        """Uncount an entry that was counted as staying and is evicted after all."""
        known = self._of(self.kept, group)
        known.entries = max(0, known.entries - 1)

    @property
    def total(self) -> float:
        """Bytes of all entries that stay."""
        return sum(known.entries * self.mean(group) for group, known in self.kept.items())

    def threshold(self, excess: float) -> tuple[Bucket, float]:
        """Return the last bucket that eviction by coldness reaches, and the bytes to evict from that bucket."""
        for bucket in sorted(self.coldness, reverse=True):
            size = sum(count * self.mean(group) for group, count in self.coldness[bucket].items())
            if size >= excess:
                return bucket, excess
            excess -= size
        return 0, excess

    def statistics(self, *, complete: bool) -> CacheStatistics:
        """Return the entries that stay by model, as reports show them; all dimensions of a model count together."""
        models: dict[str, ModelEntries] = {}
        for group, known in self.kept.items():
            if known.entries:
                row = models.setdefault(group.rpartition(" ")[0], {"entries": 0, "bytes": 0})
                row["entries"] += known.entries
                row["bytes"] += round(known.entries * self.mean(group))
        entries = sum(row["entries"] for row in models.values())
        size = sum(row["bytes"] for row in models.values())
        return {"entries": entries, "bytes": size, "models": models, "complete": complete}

    def to_json(self) -> dict[str, Any]:
        """Return the form that is saved with the cursor."""
        return {
            "kept": {name: vars(group) for name, group in self.kept.items()},
            "measured": {name: vars(group) for name, group in self._measured.items()},
            "coldness": {str(bucket): row for bucket, row in self.coldness.items()},
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """Restore the saved form."""
        return cls(
            kept={name: Group(**group) for name, group in saved.get("kept", {}).items()},
            coldness={int(bucket): row for bucket, row in saved.get("coldness", {}).items()},
            _measured={name: Group(**group) for name, group in saved.get("measured", {}).items()},
        )

    def _of(self, groups: dict[str, Group], group: str) -> Group:
        """Return a group's row; when there are too many groups, the row that all others share."""
        if group in groups or len(groups) < MOST_GROUPS:
            return groups.setdefault(group, Group())
        return groups.setdefault(OTHERS, Group())
