"""Ports on the loopback interface."""

import contextlib
import random
import socket

from citadel_client.dev.errors import DevError, PortTaken

HOST = "127.0.0.1"
RANGE = range(20_000, 30_000)
"""Below the range from which systems take ports of outgoing connections, which would collide now and then."""


def is_free(port: int) -> bool:
    """Return whether a server can listen on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def resolve(port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        PortTaken: Another program listens on it.
    """
    if port and not is_free(port):
        raise PortTaken(port)
    return port or free()


def free(preferred: int | None = None, taken: frozenset[int] = frozenset()) -> int:
    """Return a free port, if possible the preferred one."""
    candidates = [preferred] if preferred else []
    candidates += random.sample(RANGE, 200)
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise DevError(f"no free port found on {HOST} between {RANGE.start} and {RANGE.stop}")


def answers(port: int, send: bytes, expected: bytes, timeout: float = 2.0) -> bool:
    """Return whether the server on the port answers `send` with bytes that contain `expected`."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout) as connection:
        connection.sendall(send)
        found = b""
        while expected not in found and len(found) < 4096:
            received = connection.recv(1024)
            if not received or b"-LOADING" in received:
                return False
            found += received
        return expected in found
    return False
