"""A server that answers the first commands of a connection as an old Redis does."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import BinaryIO


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while command := _command(self.rfile):
            answer = b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n" if command[0].upper() == b"TIME" else b"+OK\r\n"
            if command[0].upper() == b"HELLO":
                answer = self.server.answers[min(len(command), 2) - 1]  # type: ignore[attr-defined]
            self.wfile.write(answer)


def _command(stream: BinaryIO) -> list[bytes]:
    """Return the next command, empty at the end."""
    head = stream.readline()
    if not head:
        return []
    parts = []
    for _ in range(int(head[1:])):
        length = int(stream.readline()[1:])
        parts.append(stream.read(length + 2)[:-2])
    return parts


@contextlib.contextmanager
def answering(hello: bytes, hello_3: bytes) -> Iterator[int]:
    """Serve with these answers to HELLO without and with a protocol; give the port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.answers = hello, hello_3  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
