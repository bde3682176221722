"""What a process tells the service manager that started it: that it works, still works, or ends.

The protocol is systemd's: datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET names (see sd_notify(3)).
"""

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Protocol

_TIMEOUT = 5.0
"""Seconds one message may take: the manager's queue is full while it is busy."""
_LOOKS_PER_WATCH = 3
"""Signs of life within the time after which the manager gives a process up."""


class Supervisor(Protocol):
    """Who watches this process. No method raises.

    Attributes:
        interval: Seconds within which `alive` is to be called again; infinite where nobody counts.
    """

    interval: float

    def ready(self, status: str) -> None:
        """Tells, once, that the process does its work from now on."""

    def alive(self, status: str = "") -> None:
        """Tells that the process is well; to be called by the loop whose standing still is the illness.

        Called before `ready`, it tells that the start, however long, goes on.
        """

    def stopping(self, *, within: float) -> None:
        """Tells that the process ends, and within how many seconds."""


class NullSupervisor:
    """Nobody watches."""

    interval = float("inf")

    def ready(self, status: str) -> None:
        """Does nothing."""

    def alive(self, status: str = "") -> None:
        """Does nothing."""

    def stopping(self, *, within: float) -> None:
        """Does nothing."""


class NotifySupervisor:
    """A manager that listens on a datagram socket.

    Args:
        address: Path of the socket; `@` begins the name of an abstract one.
        watchdog: Seconds without a sign of life after which the manager ends the process; None: it does not count.
    """

    def __init__(self, address: str, *, watchdog: float | None = None) -> None:
        self.interval = float("inf") if watchdog is None else watchdog / _LOOKS_PER_WATCH
        # Until the process is ready no watchdog counts, but the limit of the start does.
        self._more_time = [] if watchdog is None else [_extension(watchdog)]
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Tells that the process does its work from now on."""
        self._more_time = []
        self._send("READY=1", _status(status), "WATCHDOG=1")

    def alive(self, status: str = "") -> None:
        """Tells that the process is well, or that its start goes on."""
        self._send("WATCHDOG=1", *self._more_time, *([_status(status)] if status else []))

    def stopping(self, *, within: float) -> None:
        """Tells that the process ends, which extends the manager's own limit for that where it is shorter."""
        self._send("STOPPING=1", _status("stopping"), _extension(within))

    def _send(self, *lines: str) -> None:
        # A manager that has gone is no reason to end, and signal handlers, which send too, must not log.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_TIMEOUT)
            channel.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ")


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


NULL_SUPERVISOR: Supervisor = NullSupervisor()


def supervisor_of(environment: MutableMapping[str, str] = os.environ) -> Supervisor:
    """Whoever these variables name; they are removed, so that no child process speaks for this one."""
    address = environment.pop("NOTIFY_SOCKET", "")
    watchdog, watched = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not address.startswith(("/", "@")):
        return NULL_SUPERVISOR
    counts = watchdog.isdigit() and int(watchdog) > 0 and watched in ("", str(os.getpid()))
    return NotifySupervisor(address, watchdog=int(watchdog) / 1_000_000 if counts else None)
