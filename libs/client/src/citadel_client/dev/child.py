"""One child process, started again whenever it ends."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from citadel_client.dev.logs import LogFile
from citadel_client.dev.processes import signal_group

STEADY_S = 10.0
FIRST_DELAY_S = 0.2
LAST_DELAY_S = 10.0
MANY = 5
"""Fast failures after which the user is told that more of the same will follow."""


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """What to run.

    Attributes:
        name: Short name, of the log too.
        command: Makes the command line, before each start.
        environment: All its variables.
    """

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only this one, which ends them in order."""

    def __init__(
        self, spec: ChildSpec, log: LogFile, *, changed: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self.log = log
        self.pid = 0  # none: not started yet, or between two starts
        self.exit_codes: list[int] = []
        self._changed = changed
        self._say = say
        self._gate = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"citadel-{spec.name}", daemon=True)

    def start(self) -> None:
        """Start it, and go on doing so."""
        self.log.rotate()
        self._thread.start()

    def retire(self) -> None:
        """Start it no more; the process itself goes on."""
        with self._gate:
            self._stopping.set()

    @property
    def ended(self) -> bool:
        """Whether there is no process and will be none."""
        return not self._thread.is_alive()

    def kill(self) -> None:
        """End it at once."""
        self.retire()
        if pid := self.pid:
            signal_group(pid, signal.SIGKILL)
        if self._thread.ident:
            self._thread.join()

    def _keep(self) -> None:
        fast = 0
        while process := self._spawn():
            began = time.monotonic()
            code = _outlive(process)
            self.pid = 0
            if self._stopping.is_set():
                return
            self.exit_codes.append(code)
            fast = fast + 1 if time.monotonic() - began < STEADY_S else 0
            delay = min(FIRST_DELAY_S * 2**fast, LAST_DELAY_S)
            self._report(code, fast, delay)
            self._stopping.wait(delay)

    def _spawn(self) -> "subprocess.Popen[bytes] | None":
        with self._gate:
            if self._stopping.is_set():
                return None
            with self.log.path.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603  (our own command lines)
                    list(self.spec.command()),
                    env=dict(self.spec.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.pid = process.pid
        self._changed()
        return process

    def _report(self, code: int, fast: int, delay: float) -> None:
        if fast < MANY:
            self._say(f"{self.spec.name} ended ({describe(code)}); starting it again")
        elif fast == MANY:
            self._say(
                f"{self.spec.name} keeps ending ({describe(code)}); see {self.log.path}; still trying every {delay:g} s"
            )


def _outlive(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the process's end, take what it started with it; its exit code."""
    if hasattr(os, "waitid"):
        # not reaped yet, so the group's number cannot mean another
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()
    signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
