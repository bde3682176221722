"""`citadel dev` as users meet it: a real process, its children, signals and accidents."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from citadel_client import Citadel
from citadel_client.dev.processes import alive
from tests.support.dev_stack import START_S, Dev, dev, eventually
from tests.support.planted import QUESTION, TEXT

pytestmark = [pytest.mark.local_model, pytest.mark.timeout(300)]
NAMES = {"broker", "cache", "postgres", "embeddings", "orchestration", "api"}
NAMES |= {"monitoring", "maintenance", "beat", "exporter"}
STORES = ("CITADEL_BROKER_URL", "CITADEL_CACHE_URL", "CITADEL_POSTGRES_DSN")


def refused(home: Path, *options: str) -> str:
    """Return the output of a `citadel dev` that cannot run."""
    with dev(home, *options, ready=False) as second:
        assert second.process.wait(START_S) == 1
    return second.errors.read_text()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(tmp_path_factory.mktemp("dev") / "home", "--port", "0") as started:
        yield started


def test_dev_prints_its_url_and_writes_the_env_file(running):
    assert running.process.stdout is not None
    assert running.env["CITADEL_API_URL"] in running.process.stdout.readline()
    assert set(running.env) == {
        "CITADEL_API_URL",
        "CITADEL_BROKER_URL",
        "CITADEL_RESULT_URL",
        "CITADEL_CACHE_URL",
        "CITADEL_POSTGRES_DSN",
        "CITADEL_PIDS",
    }
    assert set(running.pids) == NAMES
    assert (running.home / "env").stat().st_mode & 0o077 == 0
    shell = subprocess.run(
        ["sh", "-c", '. "$0"; printf %s "$CITADEL_API_URL"', str(running.home / "env")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == running.env["CITADEL_API_URL"]


def test_dev_embeds_with_the_local_model(running):
    with Citadel(running.env["CITADEL_API_URL"]) as citadel:
        eventually(lambda: citadel.health().status == "ok")
        found = citadel.embed(["A man is eating food.", "A man is eating a piece of bread.", TEXT])
        assert float(found.array[0] @ found.array[1]) == pytest.approx(0.755, abs=0.01)
        task = citadel.submit([TEXT, QUESTION])
        assert len(task.wait(60).vectors) == 2


def test_redis_refuses_clients_without_the_password(running):
    port = httpx.URL(running.env["CITADEL_BROKER_URL"]).port
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_the_database_has_a_role_of_its_own_with_a_password(running):
    dsn = running.env["CITADEL_POSTGRES_DSN"]
    assert ask(dsn, "SELECT current_user::text, current_database()::text") == ("citadel", "citadel")
    assert ask(dsn, "SHOW fsync") == ("on",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(dsn, "SELECT 1", password="wrong")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf"):
        ask(dsn, "SELECT 1", user="postgres")


def ask(dsn: str, statement: str, **changes: str) -> tuple[object, ...] | None:
    with psycopg.connect(dsn, connect_timeout=10, **changes) as connection:
        return connection.execute(statement).fetchone()


def test_postgres_gets_none_of_the_users_secrets(running):
    try:
        words = Path(f"/proc/{running.pids['postgres']}/environ").read_bytes().split(b"\0")
    except PermissionError:
        pytest.skip("this root may not look into the processes of others (no CAP_SYS_PTRACE)")
    assert not [word for word in words if word.startswith((b"CITADEL_BROKER_URL", b"CITADEL_POSTGRES"))]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_child_that_dies_is_restarted(running, name):
    before = eventually(lambda: running.pids if len(running.pids) == len(NAMES) else None)[name]
    os.killpg(before, signal.SIGKILL)
    after = eventually(lambda: running.pids.get(name) if running.pids.get(name) != before else None)
    assert alive(after)
    with Citadel(running.env["CITADEL_API_URL"]) as citadel:
        eventually(lambda: serves(citadel))
    eventually(lambda: asked(running.env["CITADEL_POSTGRES_DSN"], "SELECT 1"))


def serves(citadel: Citadel) -> bool:
    try:
        return citadel.health().status == "ok" and len(citadel.embed("once more", cache_enabled=False)) == 1
    except Exception:  # noqa: BLE001  (whatever it is, it is to pass)
        return False


def test_what_was_committed_survives_the_kill_of_postgres(running):
    dsn = running.env["CITADEL_POSTGRES_DSN"]
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(running.pids["postgres"], signal.SIGKILL)  # leaves its lock file, and orphans for a moment
    assert eventually(lambda: asked(dsn, "SELECT answer FROM kept")) == (42,)


def asked(dsn: str, statement: str) -> tuple[object, ...] | None:
    try:
        return ask(dsn, statement)
    except psycopg.OperationalError:
        return None


def test_a_second_dev_on_the_same_home_names_the_first(running):
    message = refused(running.home, "--port", "0")
    assert "already runs" in message
    assert running.env["CITADEL_API_URL"] in message
    assert running.env  # the first one's file is left alone


def test_a_taken_port_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(tmp_path / "home", "--port", str(port))
    assert f"port {port} is taken" in message
    assert "--port" in message


def test_a_wrong_setting_is_named(tmp_path, monkeypatch):
    environment = os.environ | {"CITADEL_LIMITS__MAX_TEXTS": "many"}
    command = [sys.executable, "-m", "citadel_client", "dev", "--home", str(tmp_path / "home"), "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=START_S, check=False)
    assert ended.returncode == 1
    assert "CITADEL_LIMITS__MAX_TEXTS" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_signal_stops_it_cleanly_and_the_next_start_finds_the_data(tmp_path):
    home = tmp_path / "home"
    with dev(home, "--port", "0") as first:
        with Citadel(first.env["CITADEL_API_URL"]) as citadel:
            citadel.embed(["kept"])
            task = citadel.submit(["kept too"])
            task.wait(60)
        with psycopg.connect(first.env["CITADEL_POSTGRES_DSN"], connect_timeout=10) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        stores = {name: url for name, url in first.env.items() if name in STORES}
        assert_it_stops_cleanly(first, signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGHUP):
        with dev(home, "--port", "0") as again:
            assert_all_is_there(again, stores, task.task_id)
            assert_it_stops_cleanly(again, number)
    with dev(home, "--port", "0", "--json") as last:
        assert_all_is_there(last, stores, task.task_id)
        assert last.process.stdout is not None
        assert json.loads(last.process.stdout.readline()) == last.env


def assert_it_stops_cleanly(started: Dev, number: int) -> None:
    pids = started.pids
    assert started.stop(number) == 0
    assert not [name for name, pid in pids.items() if alive(pid)]
    assert not (started.home / "env").exists()


def assert_all_is_there(started: Dev, stores: dict[str, str], task_id: str) -> None:
    assert {name: url for name, url in started.env.items() if name in STORES} == stores
    assert ask(started.env["CITADEL_POSTGRES_DSN"], "SELECT answer FROM kept") == (42,)
    with Citadel(started.env["CITADEL_API_URL"]) as citadel:
        assert citadel.embed(["kept"]).cache_hits == 1
    found = httpx.get(f"{started.env['CITADEL_API_URL']}/v1/tasks/{task_id}", trust_env=False)
    assert found.json()["status"] == "succeeded"


def test_a_kill_leaves_no_process_and_the_next_start_works(tmp_path):
    home = tmp_path / "home"
    with dev(home, "--port", "0") as first:
        pids = first.pids
        first.stop(signal.SIGKILL)
        eventually(lambda: not first.env)
        with dev(home, "--port", "0") as second:  # waits for what is left of the first
            assert_all_is_new(second, pids)
            pids = second.pids
            kill_with_its_guardian(second)
            assert all(alive(pid) for pid in pids.values())
            (home / "env").unlink()  # nobody was left to do it
            with dev(home, "--port", "0") as third:  # ends what is left of the second
                assert_all_is_new(third, pids)


def kill_with_its_guardian(started: Dev) -> None:
    guardian = _guardian_of(started.process.pid)
    os.kill(guardian, signal.SIGSTOP)
    os.kill(started.process.pid, signal.SIGSTOP)
    os.kill(guardian, signal.SIGKILL)
    started.stop(signal.SIGKILL)


def assert_all_is_new(started: Dev, before: dict[str, int]) -> None:
    assert not [name for name, pid in before.items() if alive(pid)]
    assert set(started.pids) == NAMES
    assert postgres_ended_in_order(started.home)


def postgres_ended_in_order(home: Path) -> bool:
    """Return whether the first run's server was shut down by a fast shutdown, not a smart one, and not killed."""
    message = (home / "logs" / "postgres.log.1").read_text()
    return "received fast shutdown request" in message and "database system is shut down" in message


def _guardian_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split():
        if b"guardian" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no guardian")
