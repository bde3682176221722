"""The proxy that spoils connections: each of its modes does to them what it says."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.faulty_proxy import FaultyProxy

SILENCE_S = 0.3


class Echo:
    """A server that answers with what it gets; `heard_end` is set once a client has gone."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard_end = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                    connection.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    self.heard_end.set()
                    return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultyProxy]:
    with FaultyProxy(echo=echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port("echo")), timeout=10) as connection:
        assert echoed(connection, b"begin") == b"begin"
        yield connection


def echoed(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(65536)


def assert_silent(connection: socket.socket) -> None:
    connection.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        echoed(connection, b"lost")


def assert_ended(connection: socket.socket) -> None:
    try:
        assert connection.recv(100) == b""
    except ConnectionResetError:
        return


def test_a_slow_connection_keeps_the_order(proxy: FaultyProxy, client: socket.socket) -> None:
    proxy.mode("echo", "slow", delay_s=0.1)
    client.sendall(b"slow ")
    proxy.mode("echo")
    client.sendall(b"fast")
    found = b""
    while len(found) < 9:
        found += client.recv(100)
    assert found == b"slow fast"


def test_open_and_new_connections_are_reset(proxy: FaultyProxy, client: socket.socket) -> None:
    proxy.mode("echo", "reset")
    assert_ended(client)
    # The reset may come before the connection is open for this side.
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port("echo")), timeout=10) as other,
    ):
        assert_ended(other)


def test_an_answer_is_cut_off_and_later_ones_are_whole(proxy: FaultyProxy, client: socket.socket) -> None:
    proxy.mode("echo", "truncate", bytes=3)
    client.sendall(b"abcdef")
    assert client.recv(100) == b"abc"
    with pytest.raises(ConnectionError):
        client.recv(100)
    proxy.mode("echo")
    with socket.create_connection(("127.0.0.1", proxy.port("echo")), timeout=10) as other:
        assert echoed(other, b"abcdef") == b"abcdef"


@pytest.mark.parametrize(("mode", "server_hears"), [("half_open", True), ("vanished", False)])
def test_a_lost_connection_stays_silent_and_a_new_one_works_afterwards(
    echo: Echo, proxy: FaultyProxy, client: socket.socket, mode: str, server_hears: bool
) -> None:
    proxy.mode("echo", mode)
    assert_silent(client)
    proxy.mode("echo")
    assert_silent(client)
    with socket.create_connection(("127.0.0.1", proxy.port("echo")), timeout=10) as other:
        assert echoed(other, b"new") == b"new"
        client.close()
        assert echo.heard_end.wait(10 if server_hears else SILENCE_S) is server_hears
