"""Start of a worker: its settings and their errors, its health file, its log."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support.assertions import assert_vectors
from tests.support.celery_client import PlainClient
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess, environment

MAIN = "EMBEDDINGS__BACKENDS__main__"
WRONG = {
    "WORKER__CONCURENCY": ("3", "CITADEL_WORKER__CONCURENCY: "),
    f"{MAIN}URLS": ("localhost:11434", "CITADEL_EMBEDDINGS__BACKENDS__MAIN__URLS: URL 1 of 1 has no scheme"),
    "WORKER__VISIBILITY_TIMEOUT": ("100", "worker.visibility_timeout must exceed"),
    "BROKER_URL_FILE": ("/does/not/exist", "CITADEL_BROKER_URL_FILE: cannot read /does/not/exist"),
}


@pytest.mark.parametrize(("name", "value", "line"), [(name, *rest) for name, rest in WRONG.items()], ids=WRONG)
def test_a_wrong_setting_is_named(name, value, line):
    env = environment("redis://127.0.0.1:1/0", "http://127.0.0.1:1", **{name: value})
    ended = subprocess.run(
        [sys.executable, "-m", "citadel_embeddings"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78
    [said] = ended.stderr.splitlines()
    assert said.startswith("citadel: wrong setting: ")
    assert line in said


@pytest.fixture(scope="module")
def guarded():
    """A Redis with a password."""
    require_redis()
    with RedisProcess(password="geheim-123") as server:
        yield server


@pytest.fixture(scope="module")
def secretive(guarded, ollama, tmp_path_factory):
    """A worker that has its secrets from files, and logs all it can."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "broker").write_text(guarded.url + "\n")
    (folder / "key").write_text("api-key-456\n")
    files = {"BROKER_URL_FILE": folder / "broker", f"{MAIN}API_KEY_FILE": folder / "key"}
    env = {"LOG__LEVEL": "debug", "WORKER__HEALTH_FILE": folder / "health" / "file"}
    ollama.reset()
    with WorkerProcess("", ollama.url, **files, **env) as process:
        process.folder = folder
        yield process


def test_secrets_come_from_files(secretive, guarded, double):
    with PlainClient(guarded.url) as plain:
        assert_vectors(plain.call("generate_embedding", ["a"]), ["a"])
    assert double.stats()["last_headers"]["authorization"] == "Bearer api-key-456"


def test_the_health_file_is_touched_while_it_is_healthy(secretive):
    file = secretive.folder / "health" / "file"
    os.utime(file, (0, 0))
    eventually(lambda: file.stat().st_mtime > 0)


def test_a_worker_stays_healthy_during_an_outage_of_redis(secretive, guarded):
    file = secretive.folder / "health" / "file"
    guarded.kill()
    secretive.wait_for("pulse_step_failed")
    os.utime(file, (0, 0))
    eventually(lambda: file.stat().st_mtime > 0)
    guarded.restart()
    with PlainClient(guarded.url) as plain:
        assert plain.call("generate_embedding", ["b"])["success"]


def test_no_secret_is_logged(secretive, guarded):
    with PlainClient(guarded.url) as plain:
        plain.error("generate_embedding", "[[nan]]")
    secretive.signal(signal.SIGTERM)
    assert secretive.wait() == 0
    assert "worker_ready" in secretive.output
    assert "geheim" not in secretive.output
    assert "api-key" not in secretive.output


def test_a_wrong_password_is_not_logged(guarded, ollama):
    url = guarded.url.replace("geheim", "falsch")
    with WorkerProcess(url, ollama.url, wait=False) as worker:
        eventually(lambda: "Cannot connect" in worker.output or "Authentication" in worker.output or worker.is_over)
        assert "falsch" not in worker.output
