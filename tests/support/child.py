"""Child processes that die with the test process, however that one ends."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]

# A launcher instead of preexec_fn, which Python warns about in a process with threads.
_DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""


def spawn(command: Sequence[str], *, output: IO[bytes], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command whose first part is a path."""
    launcher = [sys.executable, "-S", "-E", "-c", _DIE_WITH_PARENT]
    return subprocess.Popen(
        [*launcher, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(env), cwd=ROOT
    )


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
