"""The guardian: a process that ends the stack's children if the stack is killed.

It reads JSON lines from the stack, `[{"grace": seconds, "signal": number, "pids": [...]}, ...]`: the children that run,
in the order in which to end them. When its input closes, it ends those of the last line and removes the env file, whose
existence means that the stack is ready. After an orderly stop, the last line is empty.
It holds the home's lock until then, so that the next run waits for free ports and files.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from citadel_client.dev.processes import alive, end_groups

Stages = list[dict[str, Any]]
RESPAWN_DELAY_S = 0.2


class Guardian:
    """The stack's side: keeps the guardian process running and up to date."""

    def __init__(self, lock: int, env_file: Path) -> None:
        self._env_file = env_file
        self._lock = lock
        self._stages: Stages = []
        self._closing = threading.Event()
        self._mutex = threading.Lock()
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._supervise, name="citadel-guardian", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def update(self, stages: Stages) -> None:
        """Send the children that run now."""
        with self._mutex:
            self._stages = stages
            self._write()

    def close(self) -> None:
        """Let the guardian end; no child runs any more."""
        self.update([])
        with self._mutex:
            self._closing.set()
            self._close_input()
        self._thread.join(timeout=5)

    def _supervise(self) -> None:
        while self._process.wait() is not None:
            with self._mutex:
                self._close_input()
                if self._closing.wait(RESPAWN_DELAY_S):
                    return
                self._process = self._spawn()
                self._write()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603  (our own command line)
            [sys.executable, "-P", "-m", "citadel_client.dev.guardian", str(self._env_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[self._lock],
            cwd="/",
        )

    def _write(self) -> None:
        # A guardian that has died is replaced by `_supervise`, which sends the stages to its successor.
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin:
                self._process.stdin.write(json.dumps(self._stages).encode() + b"\n")
                self._process.stdin.flush()

    def _close_input(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()


def end(stages: Stages) -> None:
    """End the processes that still run, stage by stage."""
    for stage in stages:
        left = [pid for pid in stage["pids"] if alive(pid)]
        end_groups(left, stage["grace"], lambda pid: not alive(pid), signal.Signals(stage["signal"]))


def main() -> None:
    """Read stages until the stack closes its end of the pipe, then end the children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stages: Stages = []
    for line in sys.stdin:
        with contextlib.suppress(ValueError):  # a line that was cut off: the one before it holds
            stages = json.loads(line)
    if stages:
        Path(sys.argv[1]).unlink(missing_ok=True)
        end(stages)


if __name__ == "__main__":
    main()
    os._exit(0)
