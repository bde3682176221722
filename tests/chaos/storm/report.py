"""The report of a storm: one table of work, one of faults, one of processes, and what breaks a promise."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.storm.audit import fates
from tests.chaos.storm.ledger import Entry, Fate, Kind

BAD = (Fate.LOST, Fate.STUCK, Fate.FAILED, Fate.WRONG)
SHOWN = 30
"""Offences of one sort that are printed; the file has all."""
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Window:
    """One fault as it happened: `healed` are the seconds from its end until everything worked again."""

    fault: str
    begin: float
    end: float
    healed: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident bytes of a process at the end and at most, and its bound."""

    process: str
    last: int
    most: int
    bound: int


@dataclass(kw_only=True)
class Report:
    """Everything that a storm has found.

    Attributes:
        seed: The seed.
        entries: The work.
        windows: The faults.
        memory: The processes.
        twice: Effects that happened twice.
        left: What is left over.
        quiet_after: Seconds from the end of the load until nothing was under way.
        heal_bound: Seconds within which everything works again after a fault.
        others: Further offences.
    """

    seed: int
    entries: Sequence[Entry] = ()
    windows: list[Window] = field(default_factory=list)
    memory: Sequence[Memory] = ()
    twice: Sequence[str] = ()
    left: Sequence[str] = ()
    quiet_after: float = 0.0
    heal_bound: float = 0.0
    others: list[str] = field(default_factory=list)

    @property
    def offences(self) -> list[str]:
        """What breaks a promise; empty after a good storm."""
        bad = [f"{each.fate}: {each.kind} {each.name}: {each.reason}" for each in self.entries if each.fate in BAD]
        slow = [
            f"not healed: {each.healed:.1f} s after the end of {each.fault!r}"
            for each in self.windows
            if each.healed > self.heal_bound
        ]
        large = [f"memory: {each.process} has {each.last // MIB} MiB" for each in self.memory if each.last > each.bound]
        twice, left = [f"twice: {each}" for each in self.twice], [f"left over: {each}" for each in self.left]
        return [*bad, *twice, *left, *slow, *large, *self.others]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values, but for the work that has finished."""
        unfinished = [entry for entry in self.entries if entry.fate is not Fate.FINISHED]
        return {
            "seed": self.seed,
            "work": {kind: dict(counts) for kind, counts in fates(self.entries).items()},
            "faults": [dataclasses.asdict(window) for window in self.windows],
            "memory": [dataclasses.asdict(each) for each in self.memory],
            "quiet_after": self.quiet_after,
            "offences": self.offences,
            "unfinished": [dataclasses.asdict(entry) | {"expected": None} for entry in unfinished],
        }

    def __str__(self) -> str:
        parts = [f"seed {self.seed}, {len(self.windows)} faults, quiet {self.quiet_after:.1f} s after the load's end"]
        parts += [_table(self._work()), _table(self._faults()), _table(self._processes())]
        offences = self.offences
        more = [f"... and {len(offences) - SHOWN} more"] if len(offences) > SHOWN else []
        conclusion = (
            f"{len(offences)} offences:" if offences else "nothing lost, wrong, recorded twice, stuck or too large"
        )
        return "\n\n".join(parts) + "\n\n" + "\n".join([conclusion, *offences[:SHOWN], *more])

    def _work(self) -> list[list[str]]:
        columns = [Fate.FINISHED, Fate.REFUSED, Fate.DESTROYED, Fate.FAILED, Fate.LOST, Fate.STUCK, Fate.WRONG]
        rows = [["work", "sent", *columns, "p50 s", "p99 s"]]
        for kind, counts in fates(self.entries).items():
            done = [entry.seconds for entry in self.entries if entry.kind is kind and entry.fate is Fate.FINISHED]
            rows.append([kind, str(counts.total()), *(str(counts[fate]) for fate in columns), *_percentiles(done)])
        return [*rows, ["effects twice", *[""] * len(columns), "", str(len(self.twice)), ""]]

    def _faults(self) -> list[list[str]]:
        during, after = self._by_window()
        by_name: dict[str, list[Window]] = defaultdict(list)
        for window in self.windows:
            by_name[window.fault].append(window)
        head = ["fault", "times", "healed after s", "refused", "p50 during", "p99 during", "p50 after", "p99 after"]
        rows = [head]
        for name, windows in sorted(by_name.items()):
            within = [entry for window in windows for entry in during[window.begin]]
            later = [entry.seconds for window in windows for entry in after[window.begin] if _counts(entry)]
            refused = sum(entry.fate is Fate.REFUSED for entry in within)
            healed = max(window.healed for window in windows)
            done = [entry.seconds for entry in within if _counts(entry)]
            rows.append(
                [name, str(len(windows)), f"{healed:.1f}", str(refused), *_percentiles(done), *_percentiles(later)]
            )
        return rows

    def _by_window(self) -> tuple[dict[float, list[Entry]], dict[float, list[Entry]]]:
        """Return the embeddings asked for during each fault, and between it and the next one."""
        during: dict[float, list[Entry]] = defaultdict(list)
        after: dict[float, list[Entry]] = defaultdict(list)
        asked = [entry for entry in self.entries if entry.kind is Kind.EMBEDDING]
        nexts = [*(window.begin for window in self.windows[1:]), math.inf]
        for window, until in zip(self.windows, nexts, strict=False):
            during[window.begin] = [entry for entry in asked if window.begin <= entry.sent_at < window.end]
            after[window.begin] = [entry for entry in asked if window.end <= entry.sent_at < until]
        return during, after

    def _processes(self) -> list[list[str]]:
        sizes = [(each.process, (each.last, each.most, each.bound)) for each in self.memory]
        head = ["process", "MiB at the end", "MiB at most", "bound"]
        return [head, *([name, *(str(size // MIB) for size in found)] for name, found in sizes)]


def _counts(entry: Entry) -> bool:
    return entry.fate is Fate.FINISHED


def _percentiles(seconds: Iterable[float]) -> list[str]:
    """Return the median and the 99th percentile of durations, as words."""
    ordered = sorted(seconds)
    if not ordered:
        return ["-", "-"]
    return [f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.2f}" for share in (0.5, 0.99)]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
