"""Real processes for the API's tests: Redis, the API, a worker."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.child import free_port
from tests.support.disclosure import DISCLOSURES
from tests.support.exports import exports
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    """Returns once `condition` holds."""
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
        """It accepts, and never answers."""
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again."""
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it and forgets its data."""
        self.store.close()
        super().stop()


class Program:
    """A Python program of the tree as a process of its own."""

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
        """SIGTERM, and the exit code."""
        self.scrape_last()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=PATIENCE)

    def kill_all(self) -> None:
        """Ends the program and whatever it left behind."""
        self.scrape_last()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()

    def scrape_last(self) -> None:
        """Has its metrics searched; those of a program that serves none are none."""

    @property
    def family(self) -> list[int]:
        """Living processes of the program's session."""
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
        super().__init__("citadel_orchestration.api", {"CITADEL_API__PORT": str(self.port)} | dict(environment), log)
        self.url = f"http://127.0.0.1:{self.port}"
        until(self._lives, f"the API's start; see {log}")

    def scrape_last(self) -> None:
        """Has its metrics searched."""
        if self.process.poll() is None:
            DISCLOSURES.scrape("citadel_orchestration.api", f"{self.url}/metrics")

    def _lives(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            # asked many times a second: a client of httpx would load all certificates each time
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                connection.request("GET", "/livez")
                return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
