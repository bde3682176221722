"""The probe against servers that listen."""

import socket
import threading

import pytest

from citadel_common.probe import why_unwell


@pytest.fixture
def server():
    """Answers one request with a given line; `line=None` hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(line):
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(1000).split(b"\r\n")[0].decode())
                if line:
                    connection.sendall(f"{line}\r\n\r\n".encode())

        asked = []

        def serve(line):
            threading.Thread(target=answer, args=(line,), daemon=True).start()
            return {"CITADEL_API__PORT": str(listener.getsockname()[1]), "CITADEL_API__HOST": "0.0.0.0"}, asked

        yield serve


def test_an_answer_of_200_is_well(server):
    environment, asked = server("HTTP/1.1 200 OK")
    assert why_unwell("api", "/readyz", environment) is None
    assert asked == ["GET /readyz HTTP/1.1"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [("HTTP/1.1 503 Service Unavailable", "HTTP/1.1 503 Service Unavailable"), (None, "no answer")],
)
def test_another_answer_is_not(server, line, reason):
    environment, _ = server(line)
    assert why_unwell("api", "/livez", environment).endswith(f"/livez: {reason}")


def test_a_process_that_does_not_listen_is_unhealthy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert why_unwell("exporter", "/livez", {"CITADEL_EXPORTER__PORT": str(port)}).endswith("Connection refused")
