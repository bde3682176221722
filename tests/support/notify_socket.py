"""The service manager's end of the notify socket, for datagrams from real processes."""

import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.polling import eventually

MOST_BYTES = 4096


class NotifySocket:
    """Listens from the start on; `abstract` sockets have a name and no file."""

    def __init__(self, *, abstract: bool = False) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="citadel-notify-")
        path = str(Path(self._dir.name) / "socket")
        self.address = f"@{path}" if abstract else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path}" if abstract else path)
        self._socket.setblocking(False)
        self._seen: list[dict[str, str]] = []

    def variables(self, *, watchdog_s: float | None = None) -> dict[str, str]:
        """Return what a manager puts into the environment."""
        watchdog = {} if watchdog_s is None else {"WATCHDOG_USEC": str(int(watchdog_s * 1_000_000))}
        return {"NOTIFY_SOCKET": self.address} | watchdog

    def take(self) -> list[dict[str, str]]:
        """Return what came since the last call, message by message."""
        taken = []
        while (message := self._receive()) is not None:
            taken.append(message)
        self._seen += taken
        return taken

    def wait_for(self, name: str, *, times: int = 1) -> dict[str, str]:
        """Wait for that many further messages with that name; return the last of them."""
        found: list[dict[str, str]] = []

        def enough() -> bool:
            found.extend(message for message in self.take() if name in message)
            return len(found) >= times

        eventually(enough)
        return found[-1]

    def has_had(self, name: str) -> bool:
        """Return True if such a message came at any time."""
        self.take()
        return any(name in message for message in self._seen)

    def _receive(self) -> dict[str, str] | None:
        try:
            text = self._socket.recv(MOST_BYTES).decode()
        except BlockingIOError:
            return None
        return dict(line.split("=", 1) for line in text.splitlines())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._dir.cleanup()
