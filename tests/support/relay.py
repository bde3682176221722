"""A relay in front of a server, whose connections a test can cut, or let go dead without a word."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

PIECE = 65536


class Relay:
    """Listens on a free port and passes bytes on in both directions."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections = 0
        self._open: list[socket.socket] = []
        self._limit: int | None = None
        self._passes = {True: threading.Event(), False: threading.Event()}
        self.heal()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections at once; new ones are served."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._open = []

    def cut_next_after(self, count: int) -> None:
        """Cut the next answer off after that many bytes."""
        self._limit = count

    def vanish(self, *, requests: bool = True, answers: bool = True) -> None:
        """Let all bytes vanish for now, in both directions or one: no end of a connection hears of it."""
        for is_answer, vanishes in ((False, requests), (True, answers)):
            if vanishes:
                self._passes[is_answer].clear()

    def heal(self) -> None:
        """Pass on what has waited, as TCP does, and what comes."""
        for passes in self._passes.values():
            passes.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            with self._lock:
                self._open += [near, far]
            self.connections += 1
            threading.Thread(target=self._pass_on, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(far, near, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                self._passes[is_answer].wait()
                if is_answer and self._limit is not None and self._limit < len(piece):
                    sink.sendall(piece[: self._limit])
                    self._limit = None
                    break
                if is_answer and self._limit is not None:
                    self._limit -= len(piece)
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.heal()
        self.cut()
