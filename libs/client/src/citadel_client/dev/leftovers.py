"""Processes that an earlier run left: wait for them, or end them."""

import time
from collections.abc import Callable
from pathlib import Path

from citadel_client.dev.environment import HOME_VARIABLE
from citadel_client.dev.errors import AlreadyRunning, DevError
from citadel_client.dev.home import Home
from citadel_client.dev.processes import STAGES, alive, end_groups

PATIENCE_S = 75.0
GRACE_S = 10.0
POLL_S = 0.1


def claim(home: Home, say: Callable[[str], None]) -> int:
    """Take the home for this process and return the lock's descriptor.

    Raises:
        AlreadyRunning: Another stack runs on it.
        DevError: Processes of an earlier run do not end.
    """
    deadline, announced = time.monotonic() + PATIENCE_S, False
    while (lock := home.lock()) is None:
        state = home.state()
        if state.owner > 0 and alive(state.owner):
            raise AlreadyRunning(str(home.path), state.url)
        if time.monotonic() > deadline:
            raise DevError(f"processes of an earlier run on {home.path} do not end: {state.pids}")
        if not announced:
            say("waiting for the processes of an earlier run to end")
        announced = True
        time.sleep(POLL_S)
    end_leftovers(home)
    return lock


def end_leftovers(home: Home) -> None:
    """End children that an earlier run left, if its guardian was killed too."""
    left = {name: pid for name, pid in home.state().pids.items() if alive(pid) and _belongs(pid, home)}
    for stage in STAGES:
        pids = [pid for name, pid in left.items() if name in stage.names]
        end_groups(pids, GRACE_S, lambda pid: not alive(pid), stage.signal)


def _belongs(pid: int, home: Home) -> bool:
    """Return whether the process belongs to this home, and is not another one that got the same number.

    The environment tells, but Redis writes its title over it; its working directory is the data directory. PostgreSQL
    may run as another user, whose processes show their command line only (in some containers even to root).
    """
    process = Path("/proc") / str(pid)
    try:
        if str(home.database).encode() in (process / "cmdline").read_bytes().split(b"\0"):
            return True
        variables = (process / "environ").read_bytes().split(b"\0")
        directory = (process / "cwd").readlink()
    except OSError:
        return False
    return f"{HOME_VARIABLE}={home.path}".encode() in variables or directory.is_relative_to(home.path.resolve())
