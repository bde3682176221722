"""Logs of the children: a file each, of bounded size, and shown on the terminal if asked for."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

GENERATIONS = 3
LIMIT_BYTES = 10 * 2**20
TAIL_BYTES = 16 * 1024
POLL_S = 0.25


class LogFile:
    """A child's log file; the child itself appends to it, so that it never waits for this process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rotate(self) -> None:
        """Rename the last run's log, and remove the oldest."""
        for age in range(GENERATIONS - 1, 0, -1):
            older = self._generation(age - 1)
            if older.exists():
                older.replace(self._generation(age))

    def trim(self) -> None:
        """Copy and truncate a log that is too large, while the child writes it."""
        if self.path.exists() and self.path.stat().st_size > LIMIT_BYTES:
            shutil.copyfile(self.path, self._generation(1))
            with self.path.open("r+b") as file:
                file.truncate(0)

    def tail(self, lines: int = 15) -> str:
        """Return the last lines."""
        return "\n".join(self.read_from(-TAIL_BYTES)[0].splitlines()[-lines:])

    def read_from(self, offset: int) -> tuple[str, int]:
        """Return the text after an offset (from the end if negative), and the offset of its end."""
        if not self.path.exists():
            return "", 0
        size = self.path.stat().st_size
        start = max(0, size + offset) if offset < 0 else offset
        with self.path.open("rb") as file:
            file.seek(start if start <= size else 0)
            content = file.read()
            return content.decode(errors="replace"), file.tell()

    def _generation(self, age: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{age}") if age else self.path


class LogFollower:
    """Thread that trims the logs, and passes new lines to `show`."""

    def __init__(self, logs: dict[str, LogFile], show: Callable[[str, str], None] | None = None) -> None:
        self._logs = logs
        self._show = show
        self._offsets = dict.fromkeys(logs, 0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="citadel-logs", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Pass on the last lines and end the thread."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            self._round()
        self._round()

    def _round(self) -> None:
        for name, log in self._logs.items():
            if self._show:
                text, offset = log.read_from(self._offsets[name])
                whole, _, unfinished = text.rpartition("\n")
                self._offsets[name] = offset - len(unfinished.encode())
                for line in whole.splitlines():
                    self._show(name, line)
            log.trim()
