"""Child processes that die with the test process, however that one ends."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]

DIE_WITH_PARENT = [
    sys.executable,
    "-S",
    "-E",
    "-c",
    (Path(__file__).parent / "programs/die_with_parent.py").read_text(),
]
"""The beginning of a command that is killed when this process ends."""


def spawn(command: Sequence[str], *, output: IO[bytes], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command whose first part is a path."""
    return subprocess.Popen(
        [*DIE_WITH_PARENT, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(env), cwd=ROOT
    )


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
