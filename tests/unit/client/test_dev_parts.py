"""Parts of `citadel dev` that need neither processes nor sockets."""

import shlex
import threading

import pytest

from citadel_client.dev import environment, logs
from citadel_client.dev.home import Home
from citadel_client.dev.logs import LogFile, LogFollower
from citadel_client.dev.redis import RedisServer, find_server

DSN = "postgresql://citadel:p@127.0.0.1:3/citadel"
URLS = environment.store_urls("redis://:p@127.0.0.1:1/0", "redis://:p@127.0.0.1:2/0", DSN)


@pytest.fixture
def home(tmp_path):
    found = Home(tmp_path / "it's here")
    found.create()
    return found


def test_children_get_embedded_defaults(home):
    found = environment.for_children({}, home, 8080, URLS)
    assert found["CITADEL_EMBEDDINGS__BACKENDS"] == '{"local": {"kind": "local"}}'
    assert found["CITADEL_DEFAULT_MODEL"] == "all-minilm"
    assert found["CITADEL_API__PORT"] == "8080"
    assert found["CITADEL_RESULT_URL"] == found["CITADEL_BROKER_URL"] == "redis://:p@127.0.0.1:1/0"
    assert found["CITADEL_POSTGRES_DSN"] == DSN


def test_settings_of_the_user_override_defaults(home):
    user = {
        "CITADEL_EMBEDDINGS__BACKENDS__GPU__KIND": "ollama",
        "CITADEL_DEFAULT_MODEL": "bge-m3",
        "CITADEL_CACHE__TTL": "60",
    }
    found = environment.for_children(user, home, 8080, URLS)
    assert user.items() <= found.items()
    assert "CITADEL_EMBEDDINGS__BACKENDS" not in found


def test_stores_of_an_earlier_run_are_ignored(home):
    user = {"CITADEL_BROKER_URL": "redis://old", "CITADEL_POSTGRES_DSN": "old", "CITADEL_API__PORT": "1"}
    found = environment.for_children(user, home, 8080, URLS)
    assert URLS.items() <= found.items()
    assert found["CITADEL_API__PORT"] == "8080"


def test_the_orchestration_worker_opens_the_embedded_qdrant(home):
    found = environment.for_orchestration({"CITADEL_QDRANT__PATH": "elsewhere"}, home)
    assert found["CITADEL_QDRANT__PATH"] == str(home.path / "data" / "qdrant")
    assert found["CITADEL_WORKER__CONCURRENCY"] == "16"


@pytest.mark.parametrize("name", ["CITADEL_QDRANT__URL", "citadel_qdrant__url", "CITADEL_QDRANT__URL_FILE"])
def test_a_qdrant_of_the_users_is_used(home, name):
    user = {name: "http://qdrant:6333", "CITADEL_WORKER__CONCURRENCY": "4"}
    assert environment.for_orchestration(user, home) == user


def test_the_env_file_can_be_sourced_and_is_private(home):
    home.write_env({"A": "plain", "B": "it's"})
    content = home.env_file.read_text()
    assert content.startswith("A='plain'\n")
    assert shlex.split(content) == ["A=plain", "B=it's"]
    assert home.env_file.stat().st_mode & 0o777 == 0o600


def test_the_lock_is_exclusive(home):
    assert home.lock() is not None
    assert Home(home.path).lock() is None
    home.unlock()
    other = Home(home.path)
    assert other.lock() is not None
    other.unlock()


def test_state_survives_and_a_damaged_file_is_replaced(home):
    password = home.state().password
    home.update_state(password=password, ports={"broker": 1})
    assert home.state().password == password
    assert home.state().ports == {"broker": 1}
    (home.path / "state.json").write_text("{")
    assert home.state().ports == {}


def test_the_password_is_in_a_private_file_only(home, monkeypatch):
    monkeypatch.setattr("citadel_client.dev.redis.find_server", lambda: "redis-server")
    server = RedisServer(home, "broker", 6400, "secret")
    program, config = server.command()
    assert program == "redis-server"
    written = (home.data("broker") / "redis.conf").read_text()
    assert config == str(home.data("broker") / "redis.conf")
    assert "requirepass secret" in written
    assert "noeviction" in written
    assert (home.data("broker") / "redis.conf").stat().st_mode & 0o077 == 0


def test_a_server_on_path_is_found(tmp_path, monkeypatch):
    valkey = tmp_path / "valkey-server"
    valkey.touch(mode=0o755)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == valkey


def test_rotation_keeps_two_older_logs(tmp_path):
    log = LogFile(tmp_path / "api.log")
    for run in range(5):
        log.rotate()
        log.path.write_text(f"run {run}\n")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"api.log": "run 4\n", "api.log.1": "run 3\n", "api.log.2": "run 2\n"}


def test_a_log_that_is_too_large_is_copied_and_truncated_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LIMIT_BYTES", 10)
    log = LogFile(tmp_path / "api.log")
    with log.path.open("a") as writer:
        writer.write("0123456789 and more\n")
        writer.flush()
        log.trim()
        writer.write("next\n")
    assert log.path.read_text() == "next\n"
    assert (tmp_path / "api.log.1").read_text() == "0123456789 and more\n"


def test_the_tail_is_the_last_lines(tmp_path):
    log = LogFile(tmp_path / "api.log")
    assert log.tail() == ""
    log.path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert log.tail(2) == "line 98\nline 99"


def test_lines_are_shown_once_and_whole(tmp_path):
    log = LogFile(tmp_path / "api.log")
    shown, second = [], threading.Event()

    def show(name, line):
        shown.append((name, line))
        if len(shown) == 2:
            second.set()

    follower = LogFollower({"api": log}, show)
    with log.path.open("a") as writer:
        writer.write("one\ntw")
        writer.flush()
        follower.start()
        writer.write("o\n")
        writer.flush()
        assert second.wait(30)
    follower.stop()
    assert shown == [("api", "one"), ("api", "two")]
