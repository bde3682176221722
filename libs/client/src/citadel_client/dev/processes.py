"""Process groups: whether they are alive, and how and in which order they are ended."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Children that are ended together.

    Attributes:
        names: Names of the children.
        grace: Seconds until they are killed.
        signal: Signal that asks them to end.
    """

    names: tuple[str, ...]
    grace: float
    signal: Signals = SIGTERM

    def message(self, pids: dict[str, int]) -> dict[str, object]:
        """Return the stage's entry in a message to the guardian, with the process ids of its children."""
        running = [pid for name, pid in pids.items() if name in self.names]
        return {"grace": self.grace, "signal": self.signal, "pids": running}


STAGES = (
    Stage(names=("api", "beat", "exporter"), grace=20.0),
    Stage(names=("embeddings", "orchestration", "monitoring", "maintenance"), grace=30.0),
    # On SIGTERM PostgreSQL waits for every client, such as a forgotten psql; SIGINT disconnects them.
    Stage(names=("postgres",), grace=20.0, signal=SIGINT),
    Stage(names=("broker", "cache"), grace=20.0),
)
"""The children in the order in which they are ended."""


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    """Return the process's state letter; empty if the system has no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def signal_group(pid: int, number: Signals) -> None:
    """Send a signal to a child and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_groups(pids: Iterable[int], grace: float, gone: Callable[[int], bool], number: Signals = SIGTERM) -> None:
    """Send all groups the signal; kill those that are left after `grace` seconds."""
    waiting = list(pids)
    for pid in waiting:
        signal_group(pid, number)
    deadline = time.monotonic() + grace
    while (waiting := [pid for pid in waiting if not gone(pid)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for pid in waiting:
        signal_group(pid, SIGKILL)
