"""Celery's request, with expiry by the broker's clock, and without a wait for its ETA.

A worker meets messages whose `expires` other processes have set. Citadel's producers set it by the broker's clock
(`tasks.app`), plain Celery clients by their own. Celery compares it with the worker's own clock: on a host whose clock
is an hour ahead, every task that somebody waits for would count as expired.
"""

from datetime import UTC, datetime

from celery.worker.request import Request
from celery.worker.state import revoked

from citadel_common.tasks.app import clock_of


class TimedRequest(Request):  # type: ignore[misc]  # celery publishes no types
    """A task's message in a worker."""

    def maybe_expire(self) -> bool:
        """Mark the task as revoked if it has expired; return whether it has."""
        if self.expires is None or datetime.fromtimestamp(clock_of(self.app).now(), UTC) <= self.expires:
            return False
        revoked.add(self.id)
        return True

    @property
    def eta(self) -> None:
        """None: the message has waited in the broker. A task reads its ETA in `self.request.eta`."""
