"""Real processes for the API's tests: Redis, the API, a worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from tests.support.child import free_port
from tests.support.disclosure import DISCLOSURES
from tests.support.exports import exports
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.web import web

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    """Return once `condition` holds."""
    try:
        eventually(condition, PATIENCE)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


class RedisServer(RedisProcess):
    """A Redis server that can also hang, and a client of it."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.client()

    def pause(self) -> None:
        """Stop the server: it accepts connections and never answers."""
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server answer again."""
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server and forget its data."""
        self.store.close()
        super().stop()


class Program:
    """A Python program of the repository, as a process."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.log = log
        DISCLOSURES.watch(module, log)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error::ResourceWarning", "-m", module],
                env=inherited | exports() | dict(environment) | {"PYTHONPATH": path},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.scrape_last()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=PATIENCE)

    def kill_all(self) -> None:
        """End the program and its child processes."""
        self.scrape_last()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()

    def scrape_last(self) -> None:
        """Search the program's metrics for secrets; does nothing for a program that serves none."""

    @property
    def family(self) -> list[int]:
        """Return the ids of the living processes of the program's session."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            except OSError:
                continue
            if stat and stat[0] != "Z" and int(stat[3]) == self.process.pid:
                found.append(int(entry.name))
        return found


class Api(Program):
    """The HTTP API under gunicorn."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        own = {"CITADEL_API__PORT": str(self.port), "CITADEL_API__KEYLESS": "loopback"}
        super().__init__("citadel_orchestration.api", own | dict(environment), log)
        self.url = f"http://127.0.0.1:{self.port}"
        until(self._lives, f"the API's start; see {log}")

    def scrape_last(self) -> None:
        """Search the API's metrics for secrets."""
        if self.process.poll() is None:
            DISCLOSURES.scrape("citadel_orchestration.api", f"{self.url}/metrics")

    def _lives(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return web.get(f"{self.url}/livez", timeout=5).status_code == 200
        except httpx.TransportError:
            return False
