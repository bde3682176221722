"""News of runs: PostgreSQL tells of each commit, and whoever follows a run is woken.

It only saves time: followers look by themselves every few seconds, so that lost news delay nothing for long.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import structlog
from pydantic import SecretStr

from citadel_orchestration.api.http.errors import Stopping
from citadel_orchestration.db.transaction import LISTEN

log = structlog.get_logger(__name__)
LOOK = 2.0
"""Seconds after which a follower looks without news."""
PAUSE = 1.0


class RunNews:
    """One listening connection per process; belongs to one event loop."""

    def __init__(self, dsn: SecretStr) -> None:
        self._dsn = dsn
        self._followers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._leaving = False

    def start(self) -> None:
        """Begins to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Ends."""
        self.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def leave(self) -> None:
        """Ends all that would go on for as long as a run: the process is to stop."""
        self._leaving = True
        for run_id in list(self._followers):
            self._wake(run_id)

    async def follow(self, run_id: UUID, *, to_the_end: bool = False) -> AsyncIterator[None]:
        """Yields at once, and then whenever there may be something new.

        Args:
            run_id: The run.
            to_the_end: The caller bounds the time itself, and is not to be cut short.

        Raises:
            Stopping: The process is to stop.
        """
        event = asyncio.Event()
        self._followers[str(run_id)].add(event)
        try:
            while True:
                if self._leaving and not to_the_end:
                    raise Stopping
                event.clear()
                yield
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await event.wait()
        finally:
            self._followers[str(run_id)].discard(event)
            if not self._followers[str(run_id)]:
                del self._followers[str(run_id)]

    async def _listen(self) -> None:
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn.get_secret_value(), autocommit=True, connect_timeout=3
                )
                async with connection:
                    await connection.execute(LISTEN)
                    async for notice in connection.notifies():
                        self._wake(notice.payload)
            except psycopg.Error as error:
                log.warning("run_news_lost", error=type(error).__name__)
            await asyncio.sleep(PAUSE)

    def _wake(self, run_id: str) -> None:
        for event in self._followers.get(run_id, ()):
            event.set()
