"""Gunicorn, configured in code: a parent that keeps the server processes alive and stops them politely."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # gunicorn publishes no types
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from citadel_common import logs
from citadel_common.redaction import secrets_of
from citadel_common.supervisor import Supervisor, supervisor_of
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_orchestration.api.app import create_app
from citadel_orchestration.settings import ApiFragment, ApiSettings

BLOCKED_TIMEOUT = 30
"""Seconds an event loop may stand still before its process is replaced."""
SHARED_FIGURES = "PROMETHEUS_MULTIPROC_DIR"
LAST_SECONDS = 5.0
"""Seconds after the grace of a stop within which the processes are gone."""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (gunicorn keeps its heartbeat file there, off slow disks)


class ApiServer(BaseApplication):  # type: ignore[misc]
    """The API under gunicorn."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        # Taken out of the environment: gunicorn would say that it is ready before a server process is.
        self.supervisor: Supervisor = supervisor_of()
        super().__init__()

    def run(self) -> None:
        """Serves until it is told to stop."""
        WatchedArbiter(self).run()

    def load_config(self) -> None:
        """Gunicorn's hook: its settings."""
        for name, value in _gunicorn_settings(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Gunicorn's hook, called in each server process: the application."""
        process = ExitStack()
        fragment = self._settings.telemetry
        metrics = process.enter_context(process_telemetry(fragment, service="api", serves_metrics=True))
        self.cfg.set("worker_exit", lambda _, __: process.close())
        return create_app(self._settings, metrics)


class WatchedArbiter(Arbiter):  # type: ignore[misc]
    """Gunicorn's parent process, whose loop is what the service manager watches: it watches the server processes."""

    def murder_workers(self) -> None:
        """Gunicorn's step of each turn, once a second: replaces server processes that stand still."""
        super().murder_workers()
        self.app.supervisor.alive()

    def stop(self, graceful: bool = True) -> None:
        """Gunicorn's way of ending."""
        self.app.supervisor.stopping(within=self.cfg.graceful_timeout + LAST_SECONDS)
        super().stop(graceful)


class RoutedLogger(Logger):  # type: ignore[misc]
    """Gunicorn's log, as records that the process's log takes."""

    def setup(self, cfg: Any) -> None:
        """Gunicorn's hook: no handlers of its own."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True
        self._access_log_enabled = False


def serve(settings: ApiSettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    logs.configure(settings.log, service="api", secrets=secrets_of(settings))
    refusal = why_not_bindable(settings.api)
    if refusal:
        print(f"citadel: {refusal}", file=sys.stderr)  # noqa: T201  (the one line a person looks for)
        sys.exit(1)
    logging.captureWarnings(capture=True)
    with _shared_figures(settings.api.workers):
        ApiServer(settings).run()


@contextmanager
def _shared_figures(workers: int) -> Iterator[None]:
    """Several server processes count in files that each of them can read, since Prometheus meets but one of them."""
    if workers <= 1:
        yield
        return
    parent, directory = os.getpid(), tempfile.mkdtemp(prefix="citadel-api-")
    os.environ[SHARED_FIGURES] = directory
    try:
        yield
    finally:
        if os.getpid() == parent:  # the server processes are forks, and leave through here too
            shutil.rmtree(directory, ignore_errors=True)


def why_not_bindable(api: ApiFragment) -> str | None:
    """Why the address cannot be listened on; None if it can."""
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


def _stop_politely_on_interrupt(arbiter: Any) -> None:
    """Ctrl-C is a stop like SIGTERM; gunicorn would end the server processes by force."""
    signal.signal(signal.SIGINT, lambda _, frame: arbiter.signal(signal.SIGTERM, frame))


def _forget_figures(_: Any, worker: Any) -> None:
    """What a server process that has ended stood at is no figure any more; imported late, as `pipeline` does."""
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
        "logger_class": RoutedLogger,
        "timeout": BLOCKED_TIMEOUT,
        "graceful_timeout": api.graceful_timeout,
        "keepalive": api.keep_alive,
        "proc_name": "citadel-api",
        "control_socket_disable": True,
        "when_ready": _stop_politely_on_interrupt,
        "child_exit": _forget_figures,
    }
