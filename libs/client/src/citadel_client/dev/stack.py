"""The stack: started in order, watched, ended in reverse."""

import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from citadel_client.dev import environment, leftovers, ports, readiness
from citadel_client.dev.child import Child, ChildSpec
from citadel_client.dev.cluster import Programs
from citadel_client.dev.guardian import Guardian
from citadel_client.dev.home import Home
from citadel_client.dev.logs import LogFile, LogKeeper
from citadel_client.dev.processes import end_groups
from citadel_client.dev.redis import find_server
from citadel_client.dev.servers import Servers
from citadel_client.dev.stages import STAGES, Stage

SERVICES = {
    "orchestration": "citadel_orchestration",
    "embeddings": "citadel_embeddings",
    "api": "citadel_orchestration.api",
}
LATE_SERVICES = {
    "monitoring": "citadel_monitoring",
    "maintenance": "citadel_maintenance",
    "beat": "citadel_maintenance.beat",
    "exporter": "citadel_monitoring.exporter",
}
"""Started once the API serves, which needs none of them: so they do not slow its start down."""
SERVERS_START_S = 60.0
"""PostgreSQL may have to recover first."""
START_TIMEOUT_S = 180.0


def _silent(*_: str) -> None:
    """Say nothing."""


class DevStack:
    """Redis, PostgreSQL, the workers, beat, exporter and API on embedded defaults; a context manager.

    Args:
        home: Directory for data, logs and state; default CITADEL_HOME, else `.citadel`.
        port: Port of the API; 0 for a free one.
        start_timeout: Seconds until it must serve.
        say: Told what happens, in sentences.
        show: Told each line the children print, with the child's name.

    Attributes:
        missing: What was down when it became ready.
        exporter_url: Where the exporter is, once started.

    Raises:
        DevError: It cannot run; the message says what to do.
    """

    def __init__(
        self,
        home: Path | str | None = None,
        port: int = 8080,
        *,
        start_timeout: float = START_TIMEOUT_S,
        say: Callable[[str], None] = _silent,
        show: Callable[[str, str], None] | None = None,
    ) -> None:
        self.home = Home(home)
        self.missing: list[str] = []
        self._port = port
        self._start_timeout = start_timeout
        self._say = say
        self._show = show
        self._children: dict[str, Child] = {}
        self._stores: dict[str, str] = {}
        self.exporter_url = ""
        self._guardian: Guardian | None = None
        self._logs: LogKeeper | None = None
        self._ready = False
        self._gate = threading.RLock()

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return f"http://{ports.HOST}:{self._port}"

    @property
    def pids(self) -> dict[str, int]:
        """The children's process ids, by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid}

    @property
    def env(self) -> dict[str, str]:
        """What the env file says."""
        pairs = " ".join(f"{name}:{pid}" for name, pid in self.pids.items())
        return {"CITADEL_API_URL": self.api_url, **self._stores, "CITADEL_PIDS": pairs}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until it serves."""
        find_server()
        Programs.find()
        self.home.create()
        lock = leftovers.claim(self.home, self._say)
        try:
            self._port = ports.wanted(self._port)
            self.home.remove_env()
            self.home.remember(owner=os.getpid(), url=self.api_url, pids={})
            self._guardian = Guardian(lock, self.home.env_file)
            self._start_children()
        except BaseException:
            self.stop()
            raise

    def _start_children(self) -> None:
        servers = Servers(self.home, self._port)
        servers.prepare()
        self._stores = servers.variables
        self.exporter_url = f"http://{ports.HOST}:{servers.exporter_port}"
        for spec in self._specs(servers):
            log = LogFile(self.home.logs / f"{spec.name}.log")
            self._children[spec.name] = Child(spec, log, changed=self._changed, say=self._say)
        self._logs = LogKeeper({name: child.log for name, child in self._children.items()}, self._show)
        self._logs.start()
        self._bring_up(servers)

    def _specs(self, servers: Servers) -> list[ChildSpec]:
        """What to run: the servers, then who needs them."""
        general = environment.of_children(os.environ, self.home, self._port, self._stores)
        special = {
            "postgres": environment.of_postgres(self.home),
            "orchestration": environment.of_orchestration(general, self.home),
            "exporter": environment.of_exporter(general, servers.exporter_port),
        }
        commands = {server.name: server.command for server in servers.all}
        modules = SERVICES | LATE_SERVICES
        commands |= {name: _python(module) for name, module in modules.items() if _installed(module)}
        return [
            ChildSpec(name=name, command=command, environment=special.get(name, general))
            for name, command in commands.items()
        ]

    def _bring_up(self, servers: Servers) -> None:
        stores = [self._children[server.name] for server in servers.all]
        late = [child for name, child in self._children.items() if name in LATE_SERVICES]
        services = [child for child in self._children.values() if child not in stores + late]
        for child in stores:
            child.start()
        readiness.wait(stores, servers.ready, lambda: servers.waiting_for, SERVERS_START_S)
        for child in services:
            child.start()
        with closing(readiness.ApiReadiness(self.api_url)) as api:
            readiness.wait(stores + services, api.ready, lambda: api.waiting_for, self._start_timeout)
            self.missing = api.missing
        for child in late:
            child.start()
        readiness.wait([], lambda: all(child.pid for child in late), lambda: "the other services", SERVERS_START_S)
        self._ready = True
        self._changed()

    def _changed(self) -> None:
        """A child has started: write down who runs."""
        with self._gate:
            if self._guardian:
                self._guardian.tell([stage.told(self.pids) for stage in STAGES])
            self.home.remember(pids=self.pids)
            if self._ready:
                self.home.write_env(self.env)

    def stop(self) -> None:
        """End everything, in order; interrupted once more, at once."""
        self._ready = False
        self.home.remove_env()
        try:
            for child in self._children.values():
                child.retire()
            for stage in STAGES:
                self._end(stage)
        finally:
            self._finish()

    def _end(self, stage: Stage) -> None:
        by_pid = {pid: self._children[name] for name, pid in self.pids.items() if name in stage.names}
        end_groups(by_pid, stage.grace, lambda pid: by_pid[pid].ended, stage.signal)

    def _finish(self) -> None:
        for child in self._children.values():
            child.kill()
        if self._logs:
            self._logs.stop()
        if self._guardian:
            self._guardian.close()
            self.home.remember(owner=0, pids={})
        self.home.unlock()


def _python(module: str) -> Callable[[], list[str]]:
    # -P: modules in the current directory are not ours
    return lambda: [sys.executable, "-P", "-m", module]


def _installed(module: str) -> bool:
    """Whether `python -m` finds the module."""
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False
