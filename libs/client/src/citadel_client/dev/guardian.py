"""A process that outlives the stack's and ends its children, should it be killed.

It reads JSON lines from the stack, `[{"grace": seconds, "signal": number, "pids": [...]}, ...]`: who runs, in the
order in which they are to be ended. When its input closes it ends those of the last line and removes the env file,
which says that the stack is ready; an orderly stop leaves nobody.
It holds the home's lock meanwhile, so that a next run waits for the ports and files to be free.
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
    """The stack's side: keeps the process running and told."""

    def __init__(self, lock: int, env_file: Path) -> None:
        self._env_file = env_file
        self._lock = lock
        self._stages: Stages = []
        self._closing = threading.Event()
        self._gate = threading.Lock()
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._keep, name="citadel-guardian", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, stages: Stages) -> None:
        """Say who runs now."""
        with self._gate:
            self._stages = stages
            self._write()

    def close(self) -> None:
        """Let it end: nobody runs any more."""
        self.tell([])
        with self._gate:
            self._closing.set()
            self._close_input()
        self._thread.join(timeout=5)

    def _keep(self) -> None:
        while self._process.wait() is not None:
            with self._gate:
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
        # a guardian that died is replaced, and its successor told
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin:
                self._process.stdin.write(json.dumps(self._stages).encode() + b"\n")
                self._process.stdin.flush()

    def _close_input(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()


def end(stages: Stages) -> None:
    """End what still runs, stage by stage."""
    for stage in stages:
        left = [pid for pid in stage["pids"] if alive(pid)]
        end_groups(left, stage["grace"], lambda pid: not alive(pid), signal.Signals(stage["signal"]))


def main() -> None:
    """Watch until the stack's end of the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stages: Stages = []
    for line in sys.stdin:
        with contextlib.suppress(ValueError):  # cut off in the middle: the line before holds
            stages = json.loads(line)
    if stages:
        Path(sys.argv[1]).unlink(missing_ok=True)
        end(stages)


if __name__ == "__main__":
    main()
    os._exit(0)
