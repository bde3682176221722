"""Messages to the service manager that started the process: ready, alive, stopping.

The protocol is systemd's: datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET names (see sd_notify(3)).
"""

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Protocol

_TIMEOUT = 5.0
"""Seconds that one message may take: the manager's queue is full while it is busy."""
_LOOKS_PER_WATCH = 3
"""Signs of life within the manager's watchdog time."""


class Supervisor(Protocol):
    """The service manager of this process. No method raises.

    Attributes:
        interval: Seconds within which `alive` must be called again; infinite without a watchdog.
    """

    interval: float

    def ready(self, status: str) -> None:
        """Report once that the process is ready."""

    def alive(self, status: str = "") -> None:
        """Report that the process is well. The loop whose halt is the failure must call it.

        Before `ready` it reports that the start goes on.
        """

    def stopping(self, *, within: float) -> None:
        """Report that the process ends within that many seconds."""


class NullSupervisor:
    """No service manager."""

    interval = float("inf")

    def ready(self, status: str) -> None:
        """Do nothing."""

    def alive(self, status: str = "") -> None:
        """Do nothing."""

    def stopping(self, *, within: float) -> None:
        """Do nothing."""


class NotifySupervisor:
    """A manager that listens on a datagram socket.

    Args:
        address: Path of the socket; `@` begins the name of an abstract one.
        watchdog: Seconds without a sign of life after which the manager ends the process; None without a watchdog.
    """

    def __init__(self, address: str, *, watchdog: float | None = None) -> None:
        self.interval = float("inf") if watchdog is None else watchdog / _LOOKS_PER_WATCH
        # Before the process is ready the manager's limit of the start counts, and no watchdog.
        self._more_time = [] if watchdog is None else [_extension(watchdog)]
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Report that the process is ready."""
        self._more_time = []
        self._send("READY=1", _status(status), "WATCHDOG=1")

    def alive(self, status: str = "") -> None:
        """Report that the process is well, or that its start goes on."""
        self._send("WATCHDOG=1", *self._more_time, *([_status(status)] if status else []))

    def stopping(self, *, within: float) -> None:
        """Report that the process ends; this extends the manager's own limit if that is shorter."""
        self._send("STOPPING=1", _status("stopping"), _extension(within))

    def _send(self, *lines: str) -> None:
        # A manager that is gone is no reason to end. Signal handlers send too, and they must not log.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_TIMEOUT)
            channel.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ")


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


NULL_SUPERVISOR: Supervisor = NullSupervisor()


def supervisor_of(environment: MutableMapping[str, str] = os.environ) -> Supervisor:
    """Return the supervisor that these variables name, and remove them, so that no child speaks for this process."""
    address = environment.pop("NOTIFY_SOCKET", "")
    watchdog, watched = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not address.startswith(("/", "@")):
        return NULL_SUPERVISOR
    counts = watchdog.isdigit() and int(watchdog) > 0 and watched in ("", str(os.getpid()))
    return NotifySupervisor(address, watchdog=int(watchdog) / 1_000_000 if counts else None)
