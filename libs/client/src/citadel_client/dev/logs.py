"""What children print: a file each, bounded, and followed on the terminal where wanted."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

GENERATIONS = 3
LIMIT_BYTES = 10 * 2**20
TAIL_BYTES = 16 * 1024
POLL_S = 0.25


class LogFile:
    """A child's log; the child itself appends to it, so that it never waits for this process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rotate(self) -> None:
        """Put the last run's log aside and forget the oldest."""
        for age in range(GENERATIONS - 1, 0, -1):
            older = self._generation(age - 1)
            if older.exists():
                older.replace(self._generation(age))

    def trim(self) -> None:
        """Put a log aside that has grown too large, while it is being written."""
        if self.path.exists() and self.path.stat().st_size > LIMIT_BYTES:
            shutil.copyfile(self.path, self._generation(1))
            with self.path.open("r+b") as file:
                file.truncate(0)

    def tail(self, lines: int = 15) -> str:
        """The last lines, to show why a child ended."""
        return "\n".join(self.read_from(-TAIL_BYTES)[0].splitlines()[-lines:])

    def read_from(self, offset: int) -> tuple[str, int]:
        """What follows the offset (from the end where negative), and the offset after that."""
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


class LogKeeper:
    """Keeps logs bounded; hands on their lines where somebody wants to see them."""

    def __init__(self, logs: dict[str, LogFile], show: Callable[[str, str], None] | None = None) -> None:
        self._logs = logs
        self._show = show
        self._offsets = dict.fromkeys(logs, 0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="citadel-logs", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what is left, and end."""
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
                whole, _, begun = text.rpartition("\n")
                self._offsets[name] = offset - len(begun.encode())
                for line in whole.splitlines():
                    self._show(name, line)
            log.trim()
