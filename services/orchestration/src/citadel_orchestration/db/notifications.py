"""Notifications of changed runs, sent after the commits that changed them.

`pg_notify` holds a lock of the whole cluster from just before the commit until it is on disk, so a transaction that
notifies commits alone. Only the sender's own transactions notify, and their commits do not wait for the disk.
"""

import threading
from uuid import UUID

import structlog

from citadel_common.errors import CitadelError
from citadel_common.stores.postgres import Database

log = structlog.get_logger(__name__)
CHANNEL = "citadel_runs"
"""Notified with a run's id after it has new events."""
LISTEN = f"LISTEN {CHANNEL}"
PAUSE = 0.002
"""Seconds between two notifying transactions of a process; the runs that change meanwhile share the next one."""
# One statement in autocommit mode, so that the setting holds for its own commit.
_NOTIFY = """
SELECT pg_notify(%s, run_id) FROM unnest(%s::text[]) AS run_id
WHERE set_config('synchronous_commit', 'off', true) = 'off'
"""


class RunNotifications:
    """Sender of one process; thread-safe. What it cannot send is dropped: followers also poll.

    Args:
        database: Where the followers listen.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed: set[UUID] = set()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def changed(self, run_id: UUID) -> None:
        """Notify the followers of a run soon; called after the commit, never waits."""
        with self._condition:
            if self._closed:
                return
            self._changed.add(run_id)
            if self._thread is None:  # begins here and not in __init__, which may run before a fork
                self._thread = threading.Thread(target=self._send_all, name="notifications", daemon=True)
                self._thread.start()
            self._condition.notify()

    def close(self) -> None:
        """Send what is left, and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _send_all(self) -> None:
        pause = threading.Event()
        while runs := self._next():
            try:
                self._database.rows(_NOTIFY, [CHANNEL, [str(run_id) for run_id in runs]])
            except CitadelError as error:
                log.warning("run_notifications_dropped", runs=len(runs), error=error.message)
            except Exception:
                log.exception("run_notifications_crashed")
            pause.wait(PAUSE)

    def _next(self) -> set[UUID]:
        """Wait for changed runs and take them; an empty set once it is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._changed or self._closed)
            runs, self._changed = self._changed, set()
            return runs
