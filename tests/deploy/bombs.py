"""What throws bombs at a server, and another caller beside them."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from citadel_client import Citadel
from citadel_client.errors import CitadelApiError
from tests.deploy.load import MODEL
from tests.support.polling import eventually

LONG = 400.0
SERVED = 20
"""Requests of the neighbour that must be served while one kind of bomb goes off."""
SHARE = 0.95
"""Share of the neighbour's requests that must be served."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server with memory limits.

    Attributes:
        port: Port of its API on this machine.
        key: A key with all scopes.
        state: Returns starts, deaths and processes of its parts.
    """

    port: int
    key: str
    state: Callable[[], dict[str, Any]]

    def client(self) -> Citadel:
        """Return a client of its own."""
        return Citadel(f"http://127.0.0.1:{self.port}", self.key, timeout=60)

    @contextmanager
    def unharmed(self) -> Iterator["Neighbour"]:
        """Watch the server while a block throws bombs: nothing is killed, and the neighbour is served."""
        before = self.state()
        with Neighbour(self.client()) as neighbour:
            yield neighbour
            neighbour.is_served()
        print(neighbour.answers)
        assert self.state() == before
        assert neighbour.answers["served"] >= SHARE * neighbour.answers.total(), neighbour.answers

    def pour(self, open_: ExitStack, begin: bytes, piece: bytes = b"", times: int = 0) -> None:
        """Send a beginning and pieces on a connection, as far as the server takes them; leave it open."""
        with suppress(OSError):
            connection = open_.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
            connection.settimeout(1)
            connection.sendall(begin)
            for _ in range(times):
                connection.sendall(piece)


class Neighbour:
    """Another caller, with a connection of its own: it asks all the time, and counts its answers."""

    def __init__(self, citadel: Citadel) -> None:
        self._citadel = citadel
        self._over = threading.Event()
        self.answers: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._citadel.embed("hello", model=MODEL)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._citadel.close()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self._citadel.embed(f"neighbour {time.time_ns()}", model=MODEL)
                self.answers["served"] += 1
            except CitadelApiError as error:
                self.answers[error.code] += 1

    def is_served(self) -> None:
        """Wait until it has been served some times from now on."""
        before = self.answers["served"]
        eventually(lambda: self.answers["served"] >= before + SERVED, LONG)
