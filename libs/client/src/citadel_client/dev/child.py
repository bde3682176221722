"""A child process that is restarted whenever it ends."""

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
"""Fast failures in a row after which restarts are no longer reported."""


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """Specification of a child.

    Attributes:
        name: Short name, also of its log.
        command: Returns the command line; called before each start.
        environment: All its environment variables.
    """

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]


class Child:
    """A supervised process, in its own session: Ctrl-C reaches only this process, which ends its children in order.

    Args:
        spec: What to run.
        log: File that the process appends its output to.
        changed: Called after each start.
        say: Called with sentences for the user.
    """

    def __init__(
        self, spec: ChildSpec, log: LogFile, *, changed: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self.log = log
        self.pid = 0  # not started yet, or between two starts
        self.exit_codes: list[int] = []
        self._changed = changed
        self._say = say
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"citadel-{spec.name}", daemon=True)

    def start(self) -> None:
        """Start the process, and restart it whenever it ends."""
        self.log.rotate()
        self._thread.start()

    def stop_restarting(self) -> None:
        """Do not restart the process, which itself goes on."""
        with self._lock:
            self._stopping.set()

    @property
    def ended(self) -> bool:
        """Return whether the process has ended and is not restarted."""
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Kill the process and what it started."""
        self.stop_restarting()
        if pid := self.pid:
            signal_group(pid, signal.SIGKILL)
        if self._thread.ident:
            self._thread.join()

    def _supervise(self) -> None:
        fast = 0
        while process := self._spawn():
            began = time.monotonic()
            code = _wait_for_end(process)
            self.pid = 0
            if self._stopping.is_set():
                return
            self.exit_codes.append(code)
            fast = fast + 1 if time.monotonic() - began < STEADY_S else 0
            delay = min(FIRST_DELAY_S * 2**fast, LAST_DELAY_S)
            self._report(code, fast, delay)
            self._stopping.wait(delay)

    def _spawn(self) -> "subprocess.Popen[bytes] | None":
        with self._lock:
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


def _wait_for_end(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of the process, kill what it started, and return its exit code."""
    if hasattr(os, "waitid"):
        # Until the process is reaped, no other process group can get its number, which is then safe to kill.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()
    signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def describe(code: int) -> str:
    """Return an exit code in words; negative codes are signals."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
