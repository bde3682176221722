"""Sizes of cache entries by group, estimated from a sample, and how cold they are."""

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
        """Bytes of an entry."""
        return self.sampled_bytes / self.samples if self.samples else 0.0


@dataclass
class Sizes:
    """What was seen so far; kept in a lap, so bounded.

    Attributes:
        kept: Entries that stay, by group.
        coldness: How many of them there are by (bucket, group); higher buckets are colder.
    """

    kept: dict[str, Group] = field(default_factory=dict)
    coldness: dict[Bucket, dict[str, int]] = field(default_factory=dict)
    _measured: dict[str, Group] = field(default_factory=dict)

    def measured(self, group: str, size: int) -> None:
        """Notes an entry's size, whether it stays or goes."""
        known = self._of(self._measured, group)
        known.samples += 1
        known.sampled_bytes += size

    def mean(self, group: str) -> float:
        """Bytes of an entry of a group."""
        return self._of(self._measured, group).mean

    def keep(self, group: str, bucket: Bucket | None) -> None:
        """Counts an entry that stays."""
        self._of(self.kept, group).entries += 1
        if bucket is not None:
            name = group if group in self.kept else OTHERS
            row = self.coldness.setdefault(bucket, {})
            row[name] = row.get(name, 0) + 1

    def evicted(self, group: str) -> None:
        """Takes back an entry that was to stay."""
        known = self._of(self.kept, group)
        known.entries = max(0, known.entries - 1)

    @property
    def total(self) -> float:
        """Bytes of all that stays."""
        return sum(known.entries * self.mean(group) for group, known in self.kept.items())

    def threshold(self, excess: float) -> tuple[Bucket, float]:
        """The bucket in which the removal of the coldest ends, and the bytes that are to go from that one."""
        for bucket in sorted(self.coldness, reverse=True):
            size = sum(count * self.mean(group) for group, count in self.coldness[bucket].items())
            if size >= excess:
                return bucket, excess
            excess -= size
        return 0, excess

    def statistics(self, *, complete: bool) -> CacheStatistics:
        """As reported: dimensions of one model together."""
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
        """The saved form."""
        return {
            "kept": {name: vars(group) for name, group in self.kept.items()},
            "measured": {name: vars(group) for name, group in self._measured.items()},
            "coldness": {str(bucket): row for bucket, row in self.coldness.items()},
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """From the saved form."""
        return cls(
            kept={name: Group(**group) for name, group in saved.get("kept", {}).items()},
            coldness={int(bucket): row for bucket, row in saved.get("coldness", {}).items()},
            _measured={name: Group(**group) for name, group in saved.get("measured", {}).items()},
        )

    def _of(self, groups: dict[str, Group], group: str) -> Group:
        """A group's row; when there are too many groups, one for all others."""
        if group in groups or len(groups) < MOST_GROUPS:
            return groups.setdefault(group, Group())
        return groups.setdefault(OTHERS, Group())
