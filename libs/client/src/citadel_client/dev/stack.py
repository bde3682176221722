"""The embedded stack: started in order, supervised, stopped in reverse order."""

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
from citadel_client.dev.logs import LogFile, LogFollower
from citadel_client.dev.processes import STAGES, Stage, end_groups
from citadel_client.dev.redis import find_server
from citadel_client.dev.servers import Servers

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
"""Services that start only when the API is ready, which does not need them, so that its start is fast."""
SERVERS_START_S = 60.0
"""Enough for PostgreSQL to recover after a crash."""
START_TIMEOUT_S = 180.0


def _silent(*_: str) -> None:
    """Ignore the message."""


class DevStack:
    """Redis, PostgreSQL, the workers, beat, exporter and API on embedded defaults; a context manager.

    Args:
        home: Directory of data, logs and state; default CITADEL_HOME, else `.citadel`.
        port: Port of the API; 0 takes a free one.
        start_timeout: Seconds until it must be ready.
        say: Called with sentences for the user.
        show: Called with a child's name and a line of its output.

    Attributes:
        missing: Components that were down when the stack became ready.
        exporter_url: URL of the exporter, once started.

    Raises:
        DevError: The stack cannot run; the message says what to do.
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
        self._logs: LogFollower | None = None
        self._ready = False
        self._lock = threading.RLock()

    @property
    def api_url(self) -> str:
        """URL of the API."""
        return f"http://{ports.HOST}:{self._port}"

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the children, by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid}

    @property
    def env(self) -> dict[str, str]:
        """Content of the env file."""
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
        """Start all processes and wait until the stack is ready."""
        find_server()
        Programs.find()
        self.home.create()
        lock = leftovers.claim(self.home, self._say)
        try:
            self._port = ports.resolve(self._port)
            self.home.remove_env()
            self.home.update_state(owner=os.getpid(), url=self.api_url, pids={})
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
        self._logs = LogFollower({name: child.log for name, child in self._children.items()}, self._show)
        self._logs.start()
        self._bring_up(servers)

    def _specs(self, servers: Servers) -> list[ChildSpec]:
        """Return the specifications of the children: the servers, then the services that need them."""
        general = environment.for_children(os.environ, self.home, self._port, self._stores)
        special = {
            "postgres": environment.for_postgres(self.home),
            "orchestration": environment.for_orchestration(general, self.home),
            "exporter": environment.for_exporter(general, servers.exporter_port),
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
        """Write down the running children, after one has started."""
        with self._lock:
            if self._guardian:
                self._guardian.update([stage.message(self.pids) for stage in STAGES])
            self.home.update_state(pids=self.pids)
            if self._ready:
                self.home.write_env(self.env)

    def stop(self) -> None:
        """End all processes in order; a further interrupt kills them at once."""
        self._ready = False
        self.home.remove_env()
        try:
            for child in self._children.values():
                child.stop_restarting()
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
            self.home.update_state(owner=0, pids={})
        self.home.unlock()


def _python(module: str) -> Callable[[], list[str]]:
    # -P keeps modules of the current directory from shadowing ours.
    return lambda: [sys.executable, "-P", "-m", module]


def _installed(module: str) -> bool:
    """Return whether `python -m` finds the module."""
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False
