"""The ledger of a storm: what was sent, what was accepted, and what became of it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Kinds of work."""

    EMBEDDING = "embedding (HTTP)"
    TASK = "task (HTTP, 202)"
    BATCH = "batch (HTTP, 202)"
    WORKFLOW = "workflow (HTTP, 202)"
    PLAIN = "plain Celery task"
    COUNTDOWN = "plain Celery countdown"
    PLAIN_WORKFLOW = "plain Celery workflow"
    CANVAS = "plain Celery canvas"


PLAIN = frozenset({Kind.PLAIN, Kind.COUNTDOWN, Kind.PLAIN_WORKFLOW, Kind.CANVAS})
"""Kinds that live in Redis alone until they have begun."""


class Fate(StrEnum):
    """States of a piece of work; those after OPEN are final."""

    OFFERED = "offered"
    OPEN = "open"
    FINISHED = "finished"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"
    DESTROYED = "destroyed"
    LOST = "lost"
    STUCK = "stuck"
    FAILED = "failed"
    WRONG = "wrong"


UNENDED = frozenset({Fate.OPEN, Fate.UNCERTAIN})
"""States of work whose end is still looked for; nobody can say of an uncertain one that it must end."""


@dataclass(kw_only=True)
class Entry:
    """A piece of work.

    Attributes:
        number: Its number in the ledger.
        kind: Its kind.
        name: Its name, which is in its texts, points and prompts, and is used once.
        sent_at: Seconds since the epoch, as all times of the ledger.
        delay: Seconds after which it is due.
        handle: Id of its task or run, once it is known.
        expected: What its result must hold; the watcher and the auditor of its kind know the form.
        ended_at: When it ended.
        fate: Its state.
        risked: True if a fault may have destroyed it, which lived in Redis alone.
        reason: Why it did not finish.
    """

    number: int
    kind: Kind
    name: str
    sent_at: float
    delay: float = 0.0
    handle: str = ""
    expected: Any = None
    ended_at: float = 0.0
    fate: Fate = Fate.OFFERED
    risked: bool = False
    reason: str = ""

    @property
    def seconds(self) -> float:
        """From the moment at which it was due to its end."""
        return self.ended_at - self.sent_at - self.delay


class Ledger:
    """All entries of a storm, kept in the memory of this process; any thread may write."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._unended: dict[int, Entry] = {}

    def offer(self, kind: Kind, expected: Any = None) -> Entry:
        """Return a new entry, with a name that no other storm uses."""
        with self._lock:
            number = len(self._entries)
            name = f"{self._prefix}-{number}"
            entry = Entry(number=number, kind=kind, name=name, sent_at=time.time(), expected=expected)
            self._entries.append(entry)
        return entry

    def accept(self, entry: Entry, handle: str, fate: Fate = Fate.OPEN) -> None:
        """Record that it was taken, or may have been (UNCERTAIN)."""
        with self._lock:
            entry.handle, entry.fate = handle, fate
            self._unended[entry.number] = entry

    def end(self, entry: Entry, fate: Fate, reason: str = "", *, at: float | None = None) -> None:
        """Record what became of it."""
        with self._lock:
            entry.fate, entry.reason, entry.ended_at = fate, reason, time.time() if at is None else at
            self._unended.pop(entry.number, None)

    def risk(self, entry: Entry) -> None:
        """Record that a fault may have destroyed it: it need not end any more, but may."""
        with self._lock:
            if entry.fate in UNENDED:
                entry.fate, entry.risked = Fate.UNCERTAIN, True

    def unended(self, *kinds: Kind) -> list[Entry]:
        """Return the entries whose end is not known."""
        with self._lock:
            return [entry for entry in self._unended.values() if entry.kind in kinds]

    def entries(self) -> list[Entry]:
        """Return all entries so far."""
        with self._lock:
            return list(self._entries)

    @contextmanager
    def refusing(self, entry: Entry, *errors: type[Exception]) -> Iterator[None]:
        """Record these errors of a block as a refusal."""
        try:
            yield
        except errors as error:
            self.end(entry, Fate.REFUSED, type(error).__name__)
