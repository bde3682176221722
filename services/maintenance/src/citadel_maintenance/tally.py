"""What a clean-up has found and done so far, kind by kind."""

from dataclasses import dataclass, field

from citadel_contracts.maintenance import CleanupCounts


@dataclass
class Tally:
    """Of one kind: how many were found, removed, put right; bytes freed by removal, estimated."""

    examined: int = 0
    removed: int = 0
    repaired: int = 0
    bytes_freed: int = 0

    def counts(self) -> CleanupCounts:
        """As reported."""
        return {
            "examined": self.examined,
            "removed": self.removed,
            "repaired": self.repaired,
            "bytes_freed": self.bytes_freed,
        }


@dataclass
class Tallies:
    """All kinds, and how much was looked at in all.

    Attributes:
        examined: Entries, keys or rows that were looked at.
        notes: Sentences for the operator.
    """

    examined: int = 0
    notes: list[str] = field(default_factory=list)
    _kinds: dict[str, Tally] = field(default_factory=dict)

    def of(self, kind: str) -> Tally:
        """The tally of a kind."""
        return self._kinds.setdefault(kind, Tally())

    def note(self, sentence: str) -> None:
        """Adds a sentence, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @property
    def kinds(self) -> dict[str, CleanupCounts]:
        """As reported."""
        return {kind: tally.counts() for kind, tally in self._kinds.items()}

    def total(self) -> Tally:
        """The sum of what was done; `examined` is what was looked at."""
        all_kinds = self._kinds.values()
        return Tally(
            examined=self.examined,
            removed=sum(tally.removed for tally in all_kinds),
            repaired=sum(tally.repaired for tally in all_kinds),
            bytes_freed=sum(tally.bytes_freed for tally in all_kinds),
        )
