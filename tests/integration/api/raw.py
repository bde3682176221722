"""Raw connections to a server: clients that no library would be."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

HOST = b"Host: localhost\r\n"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server has sent until it closed the connection.

    Attributes:
        status: Status of the first response; 0 if there is none.
        head: Its head.
        body: All that follows.
    """

    status: int
    head: str
    body: bytes


def connected(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Return a connection to a server on this machine."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    return connection


def answer_to(port: int, pieces: Iterable[bytes]) -> Answer:
    """Send pieces as long as the server takes them; return what it says until it closes the connection."""
    with connected(port) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass  # the server has closed the connection: what it said before can still be read
        return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """Return what the server says until it closes the connection."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
    return Answer(status=status, head=head.decode("latin-1").lower(), body=body)
