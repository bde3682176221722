"""The exporter process."""

import signal
import sys
import threading
from typing import Any

import structlog

from citadel_common import logs
from citadel_common.redaction import secrets_of
from citadel_common.settings.common import load
from citadel_common.stores.startup_checks import refuse_unusable
from citadel_common.supervisor import supervisor_of
from citadel_common.telemetry.cgroup import CgroupCollector
from citadel_monitoring.exporter.collector import PlatformCollector, sources_of
from citadel_monitoring.exporter.server import listen
from citadel_monitoring.exporter.settings import ExporterSettings

log = structlog.get_logger(__name__)
_STOP_LIMIT = 15.0
"""Seconds within which running scrapes are answered."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load(ExporterSettings)
    logs.configure(settings.log, service="exporter", secrets=secrets_of(settings))
    refuse_unusable(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sys.exit(serve(settings, stop))


def serve(settings: ExporterSettings, stop: threading.Event) -> int:
    """Serve until `stop` is set; return the exit status."""
    address: dict[str, Any] = {"host": settings.exporter.host, "port": settings.exporter.port}
    supervisor = supervisor_of()
    collectors = PlatformCollector(sources_of(settings)), CgroupCollector()
    try:
        server = listen(settings.exporter.host, settings.exporter.port, *collectors, supervisor=supervisor)
    except OSError as error:
        log.error("exporter_cannot_listen", **address, error=error.strerror)
        return 1
    with server:
        threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
        supervisor.ready(f"serving on port {server.server_port}")
        log.info("exporter_ready", **address | {"port": server.server_port})
        stop.wait()
        supervisor.stopping(within=_STOP_LIMIT)
        server.shutdown()
    log.info("exporter_stopped")
    return 0
