"""The processes of Citadel under a storm; each has a session of its own and dies with this process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.child import DIE_WITH_PARENT, ROOT
from tests.support.disclosure import DISCLOSURES
from tests.support.host_clock import HostClock

START_S = 60.0
STOP_S = 45.0
PAUSE_S = 0.1


class Member:
    """One process, with its children, which can be started again at any time.

    Args:
        kind: Its service.
        number: Its number among those of its kind.
        settings: Its settings, names without the prefix.
        log: File to which all its lives write.
        ready: Returns True once it serves.
    """

    def __init__(
        self, kind: str, number: int, module: str, settings: Mapping[str, Any], log: Path, ready: Callable[[str], bool]
    ) -> None:
        self.kind, self.name, self.log = kind, f"{kind} {number}", log
        self._command = [sys.executable, "-m", module]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CITADEL_", "OTEL_"))}
        self.clock = HostClock()
        own = {f"CITADEL_{name}": str(value) for name, value in settings.items()}
        self.env = inherited | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OTEL_SDK_DISABLED": "true"} | own
        self.env |= self.clock.variables
        self._ready = ready
        self._child: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        DISCLOSURES.watch(self.name, log)

    @property
    def pid(self) -> int:
        """The process id of its present life."""
        assert self._child is not None
        return self._child.pid

    def start(self, **settings: Any) -> None:
        """Start it; does nothing while it lives.

        Args:
            settings: Further variables of this life.
        """
        self._is_wanted = True
        if not self.is_over:
            return
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [*DIE_WITH_PARENT, *self._command],
                env=self.env | settings,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until it serves.

        Raises:
            RuntimeError: It has ended, or does not serve in time.
        """
        end = time.monotonic() + START_S
        while not self._ready(self._words()):
            if self.is_over or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not serve; its log:\n{self._words()[-4000:]}")
            time.sleep(PAUSE_S)

    def _words(self) -> str:
        """Return the log of its present life."""
        with self.log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode("utf-8", "replace")

    @property
    def is_over(self) -> bool:
        """True if it does not run."""
        return self._child is None or self._child.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """Its exit code if it has ended by itself; negative is the signal that ended it."""
        return self._child.poll() if self._child is not None and self._is_wanted else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._is_wanted = False
        if self._child is not None:
            self.signal(signal.SIGKILL)
            self._child.wait()

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self.clock.__exit__(None, None, None)

    def terminate(self) -> int:
        """End it politely, at once where it does not obey; return its exit code."""
        self._is_wanted = False
        assert self._child is not None
        if self._child.poll() is None:
            self._child.terminate()
        try:
            return self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def memory(self) -> int:
        """Return the resident bytes of it and its children; 0 while it does not run."""
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            whole = psutil.Process(self.pid)
            for process in (whole, *whole.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
        return total
