"""Every bomb against a server with the memory limits of compose: no process is killed, and others are served meanwhile.

The server is the stack on the engine, or its processes in control groups with the limits of their containers.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

from citadel_client import Citadel
from citadel_client.errors import CitadelApiError
from tests.deploy.bombs import LONG, Target
from tests.deploy.engine import docker
from tests.deploy.memory_limits import TREE, LimitedGroups
from tests.deploy.stack import OWN, STORES, Stack
from tests.fuzz.server import KEY, fuzzed_server
from tests.support.bombs import BOMBS
from tests.support.postgres_server import PostgresProcess

pytestmark = pytest.mark.timeout(1800)
TARGETS = [
    pytest.param("containers", marks=pytest.mark.deploy),
    pytest.param("processes", marks=pytest.mark.chaos),
]
MEGABYTE = 2**20
WAIT = {"step_id": "w", "type": "wait", "parameters": {"signal": "go", "timeout": "10m"}}


@pytest.fixture(scope="module")
def processes(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The processes of a server, each kind in a control group."""
    log = tmp_path_factory.mktemp("bombs") / "log"
    groups = LimitedGroups()
    try:
        with fuzzed_server(postgres_server, log, limits={}, within=groups.within) as server:

            def state() -> dict[str, Any]:
                print("MiB at most:", groups.most_used())
                return {"alive": server.processes(), "killed": groups.kills()}

            yield Target(port=server.api.port, key=KEY, state=state)
    finally:
        groups.remove()


@pytest.fixture(scope="module")
def containers(stack: Stack) -> Target:
    """The stack on the engine."""
    return Target(port=stack.ports["API"], key=stack.secret("api_key"), state=lambda: _state_of(stack))


def _state_of(stack: Stack) -> dict[str, Any]:
    stack.wait_healthy()
    print("MiB at most:", {service: _most_used(stack.containers(service)[0]["Id"]) for service in (*OWN, *STORES)})
    found = {}
    for service in (*OWN, *STORES):
        for container in stack.containers(service):
            state = container["State"]
            # The server processes of the API are children; PostgreSQL has one for each connection.
            pids = sorted(line.split()[1] for line in docker("top", container["Id"]).splitlines()[1:])
            own = pids if service == "api" else [state["Pid"]]
            found[container["Name"]] = (state["StartedAt"], container["RestartCount"], state["OOMKilled"], own)
    return found


def _most_used(container: str) -> int | None:
    """Return the most MiB that a container has used at once; None where the kernel does not tell."""
    counted = TREE / "docker" / container / "memory.max_usage_in_bytes"
    return int(counted.read_text()) // MEGABYTE if counted.exists() else None


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    """A server with limits."""
    found: Target = request.getfixturevalue(request.param)
    return found


def test_definitions_that_would_make_something_huge(target: Target) -> None:
    with target.unharmed() as neighbour, target.client() as citadel, ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(lambda name: (name, _end_of(citadel, BOMBS[name].definition)), [*BOMBS, *BOMBS]))
        neighbour.is_served()
    for name, code in ends:
        assert code in BOMBS[name].codes | {"overloaded"}, (name, code)


def _end_of(citadel: Citadel, definition: dict[str, Any]) -> str:
    try:
        citadel.workflows.submit(definition).wait(LONG)
    except CitadelApiError as error:
        return error.code
    return "succeeded"


def test_headers_without_an_end(target: Target) -> None:
    with target.unharmed(), ExitStack() as open_:
        for _ in range(100):
            target.pour(
                open_, b"GET /v1/queues HTTP/1.1\r\nHost: localhost\r\n", b"a: " + b"b" * 65_000 + b"\r\n", times=125
            )


def test_bodies_that_never_end(target: Target) -> None:
    head = (
        b"POST /v1/embeddings/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Authorization: Bearer " + target.key.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    line = b'{"text": "' + b"x" * 60_000 + b'"}\n'
    with target.unharmed() as neighbour, ExitStack() as open_:
        for _ in range(30):
            target.pour(open_, head, b"%x\r\n%b\r\n" % (len(line), line), times=100)
        neighbour.is_served()


@pytest.mark.parametrize(("path", "field"), [("/v1/embeddings", "input"), ("/v1/workflows", "steps")])
def test_many_large_bodies_at_once(target: Target, path: str, field: str) -> None:
    body = b'{"%b": ["' % field.encode() + b"x" * (15 * MEGABYTE) + b'"]}'
    headers = {"authorization": f"Bearer {target.key}", "content-type": "application/json"}

    def post(_: int) -> int:
        with suppress(httpx.TransportError):
            return httpx.post(
                f"http://127.0.0.1:{target.port}{path}", content=body, headers=headers, timeout=LONG
            ).status_code
        return 0

    with target.unharmed(), ThreadPoolExecutor(40) as threads:
        answers = Counter(threads.map(post, range(80)))
    print(answers)
    assert not answers.keys() & {200, 202, 500}, answers


def test_followers_and_idle_connections_in_great_number(target: Target) -> None:
    with target.unharmed() as neighbour, target.client() as citadel, ExitStack() as open_:
        run = citadel.workflows.submit({"steps": [WAIT]})
        follow = b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
        for number in range(1500):
            target.pour(open_, follow % (run.run_id.encode(), target.key.encode()) if number % 2 else b"GET /")
        neighbour.is_served()
        run.cancel()
