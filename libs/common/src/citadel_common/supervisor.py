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

    def starting(self, status: str) -> None:
        """Tells what the process waits for."""

    def ready(self, status: str) -> None:
        """Tells, once, that the process does its work from now on."""

    def alive(self, status: str = "") -> None:
        """Tells that the process is well; to be called by the loop whose standing still is the illness."""

    def stopping(self, *, within: float) -> None:
        """Tells that the process ends, and within how many seconds."""


class NullSupervisor:
    """Nobody watches."""

    interval = float("inf")

    def starting(self, status: str) -> None:
        """Does nothing."""

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
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def starting(self, status: str) -> None:
        """Tells what the process waits for."""
        self._send(f"STATUS={status}")

    def ready(self, status: str) -> None:
        """Tells that the process does its work from now on."""
        self._send("READY=1", f"STATUS={status}", "WATCHDOG=1")

    def alive(self, status: str = "") -> None:
        """Tells that the process is well."""
        self._send("WATCHDOG=1", *([f"STATUS={status}"] if status else []))

    def stopping(self, *, within: float) -> None:
        """Tells that the process ends, which extends the manager's own limit for that where it is shorter."""
        self._send("STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={int(within * 1_000_000)}")

    def _send(self, *lines: str) -> None:
        message = "\n".join(line.replace("\n", " ") for line in lines)
        # A manager that has gone is no reason to end, and signal handlers, which send too, must not log.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_TIMEOUT)
            channel.sendto(message.encode(), self._address)


NULL_SUPERVISOR: Supervisor = NullSupervisor()


def supervisor_of(environment: MutableMapping[str, str] = os.environ) -> Supervisor:
    """Whoever these variables name; they are removed, so that no child process speaks for this one."""
    address = environment.pop("NOTIFY_SOCKET", "")
    watchdog, watched = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not address.startswith(("/", "@")):
        return NULL_SUPERVISOR
    counts = watchdog.isdigit() and int(watchdog) > 0 and watched in ("", str(os.getpid()))
    return NotifySupervisor(address, watchdog=int(watchdog) / 1_000_000 if counts else None)
