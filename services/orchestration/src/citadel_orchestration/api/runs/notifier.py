"""Notifications of changed runs: PostgreSQL passes them on, and the followers of the run wake up.

Followers also wake up by themselves every few seconds, so that a lost notification delays them only briefly.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import structlog
from pydantic import SecretStr

from citadel_common.stores.db import is_pooled
from citadel_common.stores.postgres_target import PostgresTarget
from citadel_orchestration.api.http.errors import Stopping
from citadel_orchestration.db.notifications import LISTEN

log = structlog.get_logger(__name__)
POLL_INTERVAL = 2.0
"""Seconds after which a follower wakes up without a notification."""
RECONNECT_DELAY = 1.0
POOLED = "a connection pooler forgets who listens: set CITADEL_POSTGRES__DIRECT_DSN to PostgreSQL's own address"


class RunNotifier:
    """One listening connection per process; belongs to one event loop.

    A connection pooler forgets who listens. Behind one, `direct` must lead past it; else followers poll.

    Args:
        dsn: Address of PostgreSQL.
        direct: Its address past a connection pooler; None if there is none.
    """

    def __init__(self, dsn: SecretStr, direct: SecretStr | None = None) -> None:
        self._target = PostgresTarget.of(direct or dsn, name="api-notifications")
        self._is_direct = direct is not None
        self._followers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._shutting_down = False

    def start(self) -> None:
        """Start to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Stop listening."""
        self.end_streams()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def end_streams(self) -> None:
        """End streams that would last as long as their runs: the process shuts down."""
        self._shutting_down = True
        for run_id in list(self._followers):
            self._wake(run_id)

    async def follow(self, run_id: UUID, *, until_shutdown: bool = True) -> AsyncIterator[None]:
        """Yield at once, and then whenever the run may have changed.

        Args:
            run_id: The run.
            until_shutdown: Whether to end when the process shuts down; False for callers that have a deadline.

        Raises:
            Stopping: The process shuts down.
        """
        event = asyncio.Event()
        self._followers[str(run_id)].add(event)
        try:
            while True:
                if self._shutting_down and until_shutdown:
                    raise Stopping
                event.clear()
                yield
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL):
                        await event.wait()
        finally:
            self._followers[str(run_id)].discard(event)
            if not self._followers[str(run_id)]:
                del self._followers[str(run_id)]

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._target.conninfo, autocommit=True) as connection:
                    if not self._is_direct and await is_pooled(connection):
                        log.warning("run_notifications_polled", every=POLL_INTERVAL, instead=POOLED)
                        return
                    await connection.execute(LISTEN)
                    async for notice in connection.notifies():
                        self._wake(notice.payload)
            except psycopg.Error as error:
                log.warning("run_notifications_lost", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_DELAY)

    def _wake(self, run_id: str) -> None:
        for event in self._followers.get(run_id, ()):
            event.set()
