"""What an earlier run left behind: waited for, or ended."""

import time
from collections.abc import Callable
from pathlib import Path

from citadel_client.dev.environment import HOME_MARK
from citadel_client.dev.errors import AlreadyRunning, DevError
from citadel_client.dev.home import Home
from citadel_client.dev.processes import alive, end_groups
from citadel_client.dev.stages import STAGES

PATIENCE_S = 75.0
GRACE_S = 10.0
POLL_S = 0.1


def claim(home: Home, say: Callable[[str], None]) -> int:
    """Make the home this process's own; the lock's descriptor.

    Raises:
        AlreadyRunning: Another stack runs there.
        DevError: What an earlier one left does not end.
    """
    deadline, told = time.monotonic() + PATIENCE_S, False
    while (lock := home.lock()) is None:
        kept = home.kept()
        if alive_owner(kept.owner):
            raise AlreadyRunning(str(home.path), kept.url)
        if time.monotonic() > deadline:
            raise DevError(f"processes of an earlier run on {home.path} do not end: {kept.pids}")
        if not told:
            say("waiting for the processes of an earlier run to end")
        told = True
        time.sleep(POLL_S)
    sweep(home)
    return lock


def alive_owner(pid: int) -> bool:
    """Whether the run that wrote the state still goes on."""
    return pid > 0 and alive(pid)


def sweep(home: Home) -> None:
    """End children that an earlier run and its guardian left."""
    left = {name: pid for name, pid in home.kept().pids.items() if alive(pid) and _belongs(pid, home)}
    for stage in STAGES:
        pids = [pid for name, pid in left.items() if name in stage.names]
        end_groups(pids, GRACE_S, lambda pid: not alive(pid), stage.signal)


def _belongs(pid: int, home: Home) -> bool:
    """Whether the process is of this home and not another that got the same number.

    Redis writes its title over its variables, but works in its data directory. PostgreSQL may be another user's,
    of whom everybody sees the command line, but in some containers not even root the rest.
    """
    process = Path("/proc") / str(pid)
    try:
        if str(home.database).encode() in (process / "cmdline").read_bytes().split(b"\0"):
            return True
        variables = (process / "environ").read_bytes().split(b"\0")
        directory = (process / "cwd").readlink()
    except OSError:
        return False
    return f"{HOME_MARK}={home.path}".encode() in variables or directory.is_relative_to(home.path.resolve())
