"""The real orchestration worker, as a process."""

from collections.abc import Mapping
from typing import Any

from tests.support.worker import ServiceProcess

# Short times: periods of minutes in production are over in moments here.
FAST = {
    "WORKFLOWS__LEASE": "2",
    "WORKFLOWS__SWEEP_INTERVAL": "0.1",
    "WORKER__HEARTBEAT_INTERVAL": "0.2",
    "WORKER__DEAD_AFTER": "1.5",
    "WORKER__CONCURRENCY": "8",
    "WORKER__STOP_GRACE": "5",
}


class OrchestrationProcess(ServiceProcess):
    """`python -m citadel_orchestration`, or another module that runs the worker; ready when the constructor returns."""

    def __init__(
        self,
        redis_url: str,
        dsn: str,
        others: Mapping[str, Any] | None = None,
        *,
        module: str = "citadel_orchestration",
        **settings: Any,
    ) -> None:
        stores = {"BROKER_URL": redis_url, "POSTGRES_DSN": dsn}
        super().__init__(module, stores | FAST | dict(others or {}) | settings)
