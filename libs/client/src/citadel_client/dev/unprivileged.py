"""Run a server that refuses to run as root as another user.

Run as a program, it becomes that user and then executes the command. It keeps one capability, to pass through
directories that only root may enter: home and programs may be below one (`/root`), which it must not open for others.
It imports only the standard library, so that it starts fast.
"""

import ctypes
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

USER = "nobody"
# linux/capability.h, linux/prctl.h; the narrower capability first, though containers seldom have it
CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE = 2, 1
CAPABILITY_VERSION_3 = 0x20080522
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2


def is_root() -> bool:
    """Return whether this process runs as root."""
    return os.geteuid() == 0


def give(path: Path) -> None:
    """Give a file or directory to that user, if this process runs as root.

    Raises:
        KeyError: The system has no such user.
        OSError: Root is not allowed to do so here.
    """
    if is_root():
        user = pwd.getpwnam(USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def command_as_owner(command: Sequence[str], path: Path) -> list[str]:
    """Return the command line that runs a command as the owner of `path`; the command itself without root.

    Args:
        command: Its first part is an absolute path.
        path: A file or directory of the user.
    """
    if not is_root():
        return list(command)
    owner = path.stat()
    return [sys.executable, "-I", "-S", __file__, str(owner.st_uid), str(owner.st_gid), *command]


def main(uid: int, gid: int, command: list[str]) -> None:
    """Become the user and execute the command."""
    os.chdir("/")
    passage = _capability_to_pass()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if passage is not None:
        _keep_only(libc, passage)
    os.execv(command[0], command)  # noqa: S606  (our own command lines)


def _capability_to_pass() -> int | None:
    lines = Path("/proc/self/status").read_text().splitlines()
    permitted = next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)
    return next((number for number in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if permitted >> number & 1), None)


def _keep_only(libc: ctypes.CDLL, capability: int) -> None:
    """Keep this capability and no other, also after `exec`."""
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    libc.capset(header, effective_permitted_inheritable)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
