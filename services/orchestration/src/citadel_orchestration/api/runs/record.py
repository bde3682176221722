"""The API's side of the record: built once per process, opened and closed with it."""

import asyncio
import threading
from typing import TYPE_CHECKING

import structlog

from citadel_common.errors import StoreUnavailable
from citadel_common.tasks.app import create_app
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_orchestration.api.runs.dispatcher import Teller
from citadel_orchestration.api.runs.notifier import RunNews
from citadel_orchestration.api.runs.service import Runs
from citadel_orchestration.db.migrate import migrate_patiently
from citadel_orchestration.engine.dispatch import Dispatcher
from citadel_orchestration.settings import ApiSettings
from citadel_orchestration.wiring import wire

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)


class Record:
    """Its parts. Step types are here for their checks only: neither LLMs nor Qdrant are called by the API."""

    def __init__(self, settings: ApiSettings, results: "Redis", metrics: Metrics = NULL_METRICS) -> None:
        self._settings = settings
        parts = wire(settings, results, metrics, name="api")
        self._knowledge, self._database = parts.knowledge, parts.database
        self._app = create_app(settings)
        self._app.conf.result_backend = "disabled://"
        self._news = RunNews(settings.postgres_dsn)
        self.runs = Runs(
            database=parts.database,
            definitions=parts.definitions,
            submissions=parts.submissions,
            commands=parts.commands,
            teller=Teller(Dispatcher(self._app)),
            news=self._news,
        )
        self._background: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Opens it; PostgreSQL may come up later."""
        threading.Thread(target=self._migrate, name="migrate", daemon=True).start()
        self._database.open()
        self._news.start()
        self._background = [asyncio.create_task(self._knowledge.run())]

    async def ping(self) -> None:
        """A round trip to PostgreSQL; those who ask at the same time share it.

        Raises:
            StoreUnavailable: It does not answer; says so in a few seconds at most.
        """
        await asyncio.shield(asyncio.wrap_future(self._database.watch.check()))

    def leave(self) -> None:
        """Ends the streams, which would hold up the stop for as long as their runs take."""
        self._news.leave()

    async def stop(self) -> None:
        """Closes it."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._news.stop()
        await asyncio.to_thread(self._database.close)
        self._app.close()

    def _migrate(self) -> None:
        try:
            migrate_patiently(self._settings.postgres_dsn)
        except StoreUnavailable as error:
            log.warning("record_not_migrated", error=error.message)
