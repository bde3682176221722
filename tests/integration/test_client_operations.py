"""Dead letters, history and `citadel top` by SDK and command, against the real API and workers."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from citadel_client import AsyncCitadel, Citadel, Conflict, NotFound
from citadel_common.delivery.dead_letters import DeadLetter, DeadLetters
from citadel_common.history import History
from tests.integration.api.servers import Program
from tests.integration.api.stack import WAIT, Stack, open_stack
from tests.support.assertions import assert_vectors
from tests.support.celery_client import PlainClient
from tests.support.child import free_port
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess

PATIENCE = 60.0
TASK = "generate_embedding"
ORDINARY_SCREEN, CURSOR_SHOWN = "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture(scope="module")
def stack(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    require_redis()
    with open_stack(postgres_server, tmp_path_factory.mktemp("api") / "log") as stack:
        yield stack


@pytest.fixture
def dead_letters(stack: Stack) -> Iterator[DeadLetters]:
    """The store, with a dead letter of each kind."""
    store = DeadLetters(stack.redis.store, ttl=3600)
    store.drop([entry.id for entry in store.newest()])
    store.add(DeadLetter(id="task", queue="embeddings", task=TASK, args=[["again"]], code="internal", error="broke"))
    store.add(DeadLetter(id="raw", queue="embeddings", code="undecodable_message", error="not JSON", raw="{no"))
    yield store
    store.drop([entry.id for entry in store.newest()])


def environment(url: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}
    return inherited | {"CITADEL_API_URL": url, "TERM": "xterm", "COLUMNS": "160", "LINES": "60"}


@pytest.fixture
def citadel(stack: Stack):
    """Run the command and return its exit code, standard output and standard error."""

    def run(*arguments: object, url: str = "") -> tuple[int, str, str]:
        command = [sys.executable, "-m", "citadel_client", *map(str, arguments)]
        done = subprocess.run(
            command,
            env=environment(url or stack.api.url),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


class Terminal:
    """The command on its own terminal."""

    def __init__(self, url: str, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "citadel_client", *arguments]
        self.process = subprocess.Popen(
            command, env=environment(url), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side was closed
            while piece := os.read(self._ours, 65536):
                self.shown += piece.decode(errors="replace")

    def until(self, text: str) -> None:
        """Wait until the terminal has shown the text since the last call."""
        eventually(lambda: text in self.shown or self.process.poll() is not None)
        assert text in self.shown, self.shown
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait for the command's end and its last output; return its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        os.close(self._ours)


def test_the_sdk_requeues_and_a_worker_does_the_work(stack: Stack, dead_letters: DeadLetters) -> None:
    with Citadel(stack.api.url) as client, PlainClient(stack.redis.url) as plain:
        assert [entry.id for entry in client.dead_letters.list()] == ["raw", "task"]
        assert client.dead_letters.get("task").args == [["again"]]
        with pytest.raises(Conflict, match="could not be decoded"):
            client.dead_letters.requeue("raw")
        assert client.dead_letters.requeue("task").queue == "embeddings"
        assert_vectors(plain.app.AsyncResult("task").get(timeout=PATIENCE), ["again"])
        client.dead_letters.drop("raw")
        with pytest.raises(NotFound):
            client.dead_letters.get("raw")
        assert client.dead_letters.page().total == 0


def test_the_asyncio_client_lists_requeues_and_drops(stack: Stack, dead_letters: DeadLetters) -> None:
    async def use() -> tuple[Any, ...]:
        async with AsyncCitadel(stack.api.url) as client:
            listed = [entry.id async for entry in client.dead_letters.list(code="internal")]
            done = [part async for part in client.dead_letters.requeue_all(["task", "raw"])]
            return listed, done, await client.dead_letters.drop_all(queue="embeddings")

    listed, [done], dropped = asyncio.run(use())
    assert (listed, done.requeued) == (["task"], ["task"])
    assert [failure.id for failure in done.failed] == ["raw"]
    assert dropped == 1


def test_the_command_requeues_and_drops_hundreds_of_dead_letters(citadel, dead_letters: DeadLetters) -> None:
    for n in range(450):
        dead_letters.add(DeadLetter(queue="embeddings", task=TASK, args=[[f"t{n}"]], code="bad_vector", error="zero"))
    assert len(json.loads(citadel("dead-letters", "list", "-n", 1000, "--json")[1])) == 452
    code, out, _ = citadel("dead-letters", "requeue", "--error", "ZERO", "--yes")
    assert (code, out) == (0, "450 requeued, 0 not\n")
    assert citadel("dead-letters", "show", "task")[1].count("broke")
    assert citadel("dead-letters", "requeue", "raw", "--yes")[0] == 1
    assert json.loads(citadel("dead-letters", "drop", "--all", "--yes", "--json")[1]) == {"dropped": 2}
    assert citadel("dead-letters", "show", "task")[0] == 1


def test_drop_asks_for_confirmation(stack: Stack, dead_letters: DeadLetters) -> None:
    for answer, code, left in (("n", 1, 2), ("y", 0, 0)):
        with Terminal(stack.api.url, "dead-letters", "drop", "--all") as terminal:
            terminal.until("drop all 2 dead letters?")
            terminal.type(f"{answer}\n")
            assert terminal.end() == code
        assert dead_letters.count() == left


def test_health_history_is_printed(citadel, stack: Stack) -> None:
    status = {"status": "down", "services": {"qdrant": {"status": "down"}}}
    History(stack.redis.store).record("health", {"success": True, "health_status": status})
    code, out, _ = citadel("health", "--history")
    assert (code, "qdrant down" in out) == (0, True)


def test_top_in_a_pipe_prints_once(citadel, stack: Stack, dead_letters: DeadLetters) -> None:
    path = stack.submit(WAIT)
    stack.waiting(path)
    code, out, _ = citadel("top")
    run_id = path.rpartition("/")[2]
    assert code == 0
    assert [word for word in ("embeddings", "orchestration", run_id, "dead letters: 2") if word not in out] == []
    found = json.loads(citadel("top", "--json")[1])
    assert {worker["queue"] for worker in found["workers"]} == {"embeddings", "orchestration"}
    stack.http.post(f"{path}/cancel")


@contextlib.contextmanager
def api_at(port: int, stack: Stack, log: Path) -> Iterator[None]:
    """Run an API on the stack's stores at that port while the block runs."""
    stores = {"CITADEL_BROKER_URL": stack.redis.url, "CITADEL_POSTGRES_DSN": stack.dsn}
    settings = {"CITADEL_API__PORT": str(port), "CITADEL_API__KEYLESS": "loopback"}
    program = Program("citadel_orchestration.api", stores | settings, log)
    try:
        yield
    finally:
        program.kill_all()


def test_top_survives_the_server_and_restores_the_terminal(stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    with Terminal(f"http://127.0.0.1:{port}", "top", "--interval", "0.2") as terminal:
        terminal.until("not reachable")
        for _ in range(2):
            with api_at(port, stack, tmp_path / "log"):
                terminal.until("dead letters:")
            terminal.until("not reachable")
            terminal.until("orchestration@")  # the last status is still shown
        assert ORDINARY_SCREEN not in terminal.shown
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert "Traceback" not in terminal.shown
    assert ORDINARY_SCREEN in terminal.shown
    assert CURSOR_SHOWN in terminal.shown


def test_top_shows_the_rate_of_work(stack: Stack, tmp_path: Path) -> None:
    with PlainClient(stack.redis.url) as plain, Terminal(stack.api.url, "top", "--interval", "0.2") as terminal:
        terminal.until("tasks/s")
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                plain.call(TASK, "x")

        worker = threading.Thread(target=work)
        worker.start()
        try:
            eventually(lambda: rates(terminal.shown))
        finally:
            stop.set()
            worker.join()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0


def rates(shown: str) -> bool:
    """Return whether the line of the embeddings queue has had a rate above zero."""
    lines = [line.split() for line in shown.splitlines() if line.startswith("embeddings ")]
    return any(len(line) == 9 and float(line[-1]) > 0 for line in lines)
