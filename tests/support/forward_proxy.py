"""A forward proxy for tests: CONNECT and requests in absolute form, credentials, and a record of both."""

import contextlib
import socket
import ssl
import threading
from base64 import b64encode
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.private_ca import Certificate
from tests.support.relay import PIECE


class ForwardProxy:
    """A proxy that finds every host on this machine, so names that nobody else knows lead to the tests' servers.

    Args:
        credentials: `user:password` that it demands; empty for none.
        certificate: Speaks TLS with this certificate.

    Attributes:
        requests: `CONNECT host:port` and `METHOD http://host:port/path` of each request, in order.
    """

    def __init__(self, *, credentials: str = "", certificate: Certificate | None = None) -> None:
        self._wanted = f"Basic {b64encode(credentials.encode()).decode()}" if credentials else ""
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate.file, certificate.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.requests: list[str] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its URL, without credentials."""
        return f"{'https' if self._tls else 'http'}://{self.place}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            self._open.append(near)
            head, rest = _head(near)
            method, target, version = head[0].split(" ")
            self.requests.append(f"{method} {target}")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            if self._wanted and headers.get("proxy-authorization") != self._wanted:
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            elif method == "CONNECT":
                far = self._connect(int(target.rpartition(":")[2]))
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _tunnel(near, far, rest)
            else:
                parts = urlsplit(target)
                path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
                kept = [line for line in head[1:] if not line.lower().startswith(("proxy-", "connection:"))]
                lines = [f"{method} {path} {version}", *kept, "connection: close"]
                _tunnel(near, self._connect(parts.port or 80), "\r\n".join([*lines, "\r\n"]).encode() + rest)
        near.close()

    def _connect(self, port: int) -> socket.socket:
        far = socket.create_connection(("127.0.0.1", port))
        self._open.append(far)
        return far

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _head(near: socket.socket) -> tuple[list[str], bytes]:
    """Return the lines of a request's head, and the bytes that came after it."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        piece = near.recv(PIECE)
        if not piece:
            raise ConnectionResetError
        heard += piece
    head, _, rest = heard.partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), rest


def _tunnel(near: socket.socket, far: socket.socket, first: bytes) -> None:
    far.sendall(first)
    back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
    back.start()
    _pass_on(near, far)
    back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
