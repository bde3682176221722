"""Gunicorn, configured in code: a parent process that restarts server processes and stops them gracefully."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import structlog
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # gunicorn publishes no types
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from citadel_common import logs
from citadel_common.memory import return_what_is_freed
from citadel_common.redaction import secrets_of
from citadel_common.stores.startup_checks import refuse_unusable
from citadel_common.supervisor import Supervisor, supervisor_of
from citadel_common.telemetry import Metrics
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_orchestration.api.http.connections import allow_files
from citadel_orchestration.db.migrate import refuse_unusable_schema
from citadel_orchestration.settings import ApiFragment, ApiSettings

log = structlog.get_logger(__name__)
CreateApp = Callable[[ApiSettings, Metrics], Any]

BLOCKED_TIMEOUT = 30
"""Seconds that an event loop may be blocked before its process is replaced."""
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
LAST_SECONDS = 5.0
"""Seconds that the processes need to end after the graceful timeout."""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (gunicorn keeps its heartbeat file there, off slow disks)


class ApiServer(BaseApplication):  # type: ignore[misc]
    """The API under gunicorn.

    Args:
        settings: Settings of the process.
        create_app: Builds the ASGI application; called in each server process.
    """

    def __init__(self, settings: ApiSettings, create_app: CreateApp) -> None:
        self._settings = settings
        self._create_app = create_app
        # Removes NOTIFY_SOCKET from the environment: gunicorn would report readiness before any server process serves.
        self.supervisor: Supervisor = supervisor_of()
        super().__init__()

    def run(self) -> None:
        """Serve until told to stop."""
        WatchdogArbiter(self).run()

    def load_config(self) -> None:
        """Set gunicorn's settings (gunicorn's hook)."""
        for name, value in _gunicorn_settings(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application (gunicorn's hook, called in each server process)."""
        return_what_is_freed()
        process = ExitStack()
        fragment = self._settings.telemetry
        metrics = process.enter_context(process_telemetry(fragment, service="api", serves_metrics=True))
        self.cfg.set("worker_exit", lambda _, __: process.close())
        return self._create_app(self._settings, metrics)


class WatchdogArbiter(Arbiter):  # type: ignore[misc]
    """Gunicorn's parent process; its loop feeds the service manager's watchdog."""

    def murder_workers(self) -> None:
        """Replace blocked server processes, and report that the parent lives (gunicorn calls this each second)."""
        super().murder_workers()
        self.app.supervisor.alive()

    def stop(self, graceful: bool = True) -> None:
        """Stop, and tell the service manager how long it may take."""
        self.app.supervisor.stopping(within=self.cfg.graceful_timeout + LAST_SECONDS)
        super().stop(graceful)


class PropagatingLogger(Logger):  # type: ignore[misc]
    """Gunicorn's logger, whose records go to the process's own log."""

    def setup(self, cfg: Any) -> None:
        """Configure the logger without handlers of its own (gunicorn's hook)."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True
        self._access_log_enabled = False


def serve(settings: ApiSettings, create_app: CreateApp) -> None:
    """Serve until SIGTERM or SIGINT; exit with 1 when the address cannot be listened on."""
    logs.configure(settings.log, service="api", secrets=secrets_of(settings))
    problem = bind_problem(settings.api)
    if problem:
        print(f"citadel: {problem}", file=sys.stderr)  # noqa: T201  (a person reads this line, not the log)
        sys.exit(1)
    refuse_unusable(settings)
    refuse_unusable_schema(settings)
    logging.captureWarnings(capture=True)
    if not allow_files(settings.api.max_connections):
        log.warning("too_few_open_files", connections=settings.api.max_connections, raise_to="ulimit -n, LimitNOFILE")
    with _metrics_directory(settings.api.workers):
        ApiServer(settings, create_app).run()


@contextmanager
def _metrics_directory(workers: int) -> Iterator[None]:
    """Let several server processes count in shared files: a scrape of `/metrics` reaches only one of them."""
    if workers <= 1:
        yield
        return
    parent, directory = os.getpid(), tempfile.mkdtemp(prefix="citadel-api-")
    os.environ[METRICS_DIRECTORY] = directory
    try:
        yield
    finally:
        if os.getpid() == parent:  # server processes are forks and leave this block too
            shutil.rmtree(directory, ignore_errors=True)


def bind_problem(api: ApiFragment) -> str | None:
    """Return why the address cannot be listened on; None if it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            api.host, api.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"cannot listen on {api.host}:{api.port}: {error.strerror or error}"
    return None


def _stop_gracefully_on_interrupt(arbiter: Any) -> None:
    """Treat Ctrl-C as SIGTERM: at SIGINT gunicorn would kill the server processes."""
    signal.signal(signal.SIGINT, lambda _, frame: arbiter.signal(signal.SIGTERM, frame))


def _drop_gauges(_: Any, worker: Any) -> None:
    """Drop the gauges of a server process that has ended."""
    # Imported late: prometheus_client reads METRICS_DIRECTORY when it is imported.
    from citadel_common.telemetry.prometheus import forget_process

    forget_process(worker.pid)


def _gunicorn_settings(settings: ApiSettings) -> dict[str, Any]:
    api = settings.api
    host = f"[{api.host}]" if ":" in api.host else api.host
    return {
        "bind": [f"{host}:{api.port}"],
        "workers": api.workers,
        "worker_class": "citadel_orchestration.api.http.worker.ApiWorker",
        "worker_tmp_dir": str(_SHARED_MEMORY) if os.access(_SHARED_MEMORY, os.W_OK) else None,
        "preload_app": False,
        "accesslog": None,
        "loglevel": "debug" if settings.log.level == "debug" else "warning",
        "logger_class": PropagatingLogger,
        "timeout": BLOCKED_TIMEOUT,
        "graceful_timeout": api.graceful_timeout,
        "keepalive": api.keep_alive,
        "forwarded_allow_ips": ",".join(api.trusted_proxies),
        "proc_name": "citadel-api",
        "control_socket_disable": True,
        "when_ready": _stop_gracefully_on_interrupt,
        "child_exit": _drop_gauges,
    }
