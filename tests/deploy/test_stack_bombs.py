"""Every bomb against the stack with its memory limits: no process is killed, and others are served meanwhile."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Self

import httpx
import pytest

from citadel_client import Citadel
from citadel_client.errors import CitadelApiError
from tests.deploy.engine import docker
from tests.deploy.load import MODEL
from tests.deploy.stack import LONG, OWN, STORES, Stack
from tests.support.bombs import BOMBS
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
MEGABYTE = 2**20
SERVED = 20
"""Requests of the neighbour that must be served while one kind of bomb goes off."""


class Neighbour:
    """Another caller, with connections of its own: it asks all the time, and counts its answers."""

    def __init__(self, stack: Stack) -> None:
        self._citadel = Citadel(f"http://127.0.0.1:{stack.ports['API']}", stack.secret("api_key"), timeout=60)
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


def processes(stack: Stack) -> dict[str, tuple[object, ...]]:
    """Return starts, deaths and processes of each container."""
    found = {}
    for service in (*OWN, *STORES):
        for container in stack.containers(service):
            state = container["State"]
            pids = sorted(line.split()[1] for line in docker("top", container["Id"]).splitlines()[1:])
            # PostgreSQL has a process for each connection, and the image's health checks come and go.
            own = tuple(pids) if service == "api" else (state["Pid"],)
            found[container["Name"]] = (state["StartedAt"], container["RestartCount"], state["OOMKilled"], own)
    return found


@contextmanager
def unharmed(stack: Stack) -> Iterator[Neighbour]:
    """Watch the stack while a block throws bombs."""
    stack.wait_healthy()
    before = processes(stack)
    with Neighbour(stack) as neighbour:
        yield neighbour
        neighbour.is_served()
    print(neighbour.answers)
    assert processes(stack) == before
    assert neighbour.answers["served"] >= 0.95 * neighbour.answers.total(), neighbour.answers


def test_definitions_that_would_make_something_huge(stack: Stack) -> None:
    with unharmed(stack) as neighbour, stack.client() as citadel, ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(lambda name: (name, _end_of(citadel, name)), [*BOMBS, *BOMBS]))
        neighbour.is_served()
    for name, code in ends:
        assert code in BOMBS[name].codes | {"overloaded"}, (name, code)


def _end_of(citadel: Citadel, name: str) -> str:
    try:
        run = citadel.workflows.submit(BOMBS[name].definition)
        run.wait(LONG)
    except CitadelApiError as error:
        return error.code
    return "succeeded"


def test_headers_without_an_end(stack: Stack) -> None:
    with unharmed(stack), ExitStack() as open_:
        for _ in range(100):
            _pour(
                open_, stack, b"GET /v1/queues HTTP/1.1\r\nHost: localhost\r\n", b"a: " + b"b" * 65_000 + b"\r\n", 125
            )


def test_bodies_that_come_slowly_or_never_end(stack: Stack) -> None:
    head = (
        b"POST /v1/embeddings/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Authorization: Bearer " + stack.secret("api_key").encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    line = b'{"text": "' + b"x" * 60_000 + b'"}\n'
    with unharmed(stack) as neighbour, ExitStack() as open_:
        for _ in range(30):
            _pour(open_, stack, head, b"%x\r\n%b\r\n" % (len(line), line), 100)
        neighbour.is_served()


def test_many_large_bodies_at_once(stack: Stack) -> None:
    body = b'{"input": ["' + b"x" * (15 * MEGABYTE) + b'"]}'
    url = f"http://127.0.0.1:{stack.ports['API']}/v1/embeddings"
    headers = {"authorization": f"Bearer {stack.secret('api_key')}", "content-type": "application/json"}

    def post(_: int) -> int:
        with suppress(httpx.TransportError):
            return httpx.post(url, content=body, headers=headers, timeout=LONG).status_code
        return 0

    with unharmed(stack), ThreadPoolExecutor(60) as threads:
        answers = Counter(threads.map(post, range(120)))
    assert not answers.keys() & {200, 500}, answers


def test_followers_and_idle_connections_in_great_number(stack: Stack) -> None:
    key = stack.secret("api_key").encode()
    wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go", "timeout": "10m"}}
    with unharmed(stack) as neighbour, stack.client() as citadel, ExitStack() as open_:
        run = citadel.workflows.submit({"steps": [wait]})
        follow = b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
        for number in range(1500):
            _pour(open_, stack, follow % (run.run_id.encode(), key) if number % 2 else b"GET /", b"", 0)
        neighbour.is_served()
        run.cancel()


def _pour(open_: ExitStack, stack: Stack, begin: bytes, piece: bytes, times: int) -> None:
    """Open a connection and send a beginning and many pieces, as far as the server takes them; leave it open."""
    with suppress(OSError):
        connection = open_.enter_context(socket.create_connection(("127.0.0.1", stack.ports["API"]), timeout=10))
        connection.settimeout(1)
        connection.sendall(begin)
        for _ in range(times):
            connection.sendall(piece)
