"""Process groups: whether they live, and how they are ended."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

POLL_S = 0.05


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    """The process's state letter, where the system has /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a child and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_groups(
    pids: Iterable[int], grace: float, gone: Callable[[int], bool], number: signal.Signals = signal.SIGTERM
) -> None:
    """Ask groups to end, together, by the signal; end what is left after `grace` seconds."""
    waiting = list(pids)
    for pid in waiting:
        signal_group(pid, number)
    deadline = time.monotonic() + grace
    while (waiting := [pid for pid in waiting if not gone(pid)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for pid in waiting:
        signal_group(pid, signal.SIGKILL)
