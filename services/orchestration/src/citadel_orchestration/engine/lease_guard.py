"""The guard of a worker's leases: its calls, which may cost money, end before another worker may make them again.

A worker that cannot renew its leases is cut off, or PostgreSQL takes changes from nobody: it is down, full, a standby.
In the second case nobody can take its steps over, and ending calls would only mean to pay for them twice. The *witness*
tells the two apart. Each worker notes in the broker when PostgreSQL last took a change from it, by the broker's clock.
If another worker's note is newer than the first renewal that failed here, this worker is cut off. It takes itself to be
cut off if the broker does not answer either.

When others could write again after an outage, they leave expired leases alone for half a lease (`StepRecovery`), and
this worker has most of that time to renew its own.
"""

import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_orchestration.engine.in_flight import StepsInFlight

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
WITNESS_KEY = "citadel:orchestration:postgres_takes_changes"
KEPT = 3600
"""Seconds that a worker's note is kept."""
STOP_AT = 7 / 8
"""Part of the lease after which calls end: what is left covers a timer that is late, and the cancelling."""
TIME_TO_RENEW = 3 / 8
"""Part of the lease for which others have been able to write when calls end; after a half they take steps over."""
FIRST_DOUBT = 1 / 10
"""Part of the lease by which another worker's note must be newer than the first failure: an outage begins somewhere."""
NO_OUTAGE = 7 / 20
"""Part of the lease within which others note a change after the first failure here, unless they could not write."""
SILENCE = 1 / 4
"""Part of the lease after which a broker that does not answer counts as out of reach."""
_NOTE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.6f', now - ARGV[2]))
local notes = redis.call('HGETALL', KEYS[1])
for i = 1, #notes, 2 do
  if now - notes[i + 1] > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], notes[i]) end
end
"""
_NEWEST = """
local time = redis.call('TIME')
local now, newest = time[1] + time[2] / 1000000, nil
local notes = redis.call('HGETALL', KEYS[1])
for i = 1, #notes, 2 do
  local age = now - notes[i + 1]
  if notes[i] ~= ARGV[1] and (not newest or age < newest) then newest = age end
end
return newest and string.format('%.6f', newest)
"""


class Witness:
    """Notes of all workers about PostgreSQL, in the broker.

    Args:
        client: Client of the broker's Redis.
        owner: This worker.
    """

    def __init__(self, client: "Redis", owner: str) -> None:
        self._owner = owner
        self._note: Any = client.register_script(_NOTE)
        self._newest: Any = client.register_script(_NEWEST)

    def note(self, age: float) -> None:
        """Note that PostgreSQL took a change from this worker `age` seconds ago."""
        self._note(keys=[WITNESS_KEY], args=[self._owner, age, KEPT])

    def newest_of_others(self) -> float | None:
        """Return the age in seconds of the newest note of another worker; None if there is none."""
        age: Any = self._newest(keys=[WITNESS_KEY], args=[self._owner])
        return None if age is None else float(age)


class LeaseGuard:
    """Ends the calls of a worker that is cut off; thread-safe. All times are monotonic.

    Args:
        in_flight: The worker's steps.
        witness: What other workers say of PostgreSQL.
        lease: Seconds of a lease.
        metrics: Counts the calls that end.
    """

    def __init__(
        self, in_flight: StepsInFlight, witness: Witness, *, lease: float, metrics: Metrics = NULL_METRICS
    ) -> None:
        self._in_flight = in_flight
        self._witness = witness
        self._lease = lease
        self._metrics = metrics
        self._lock = threading.Lock()
        self._proved_at = self._noted_at = float("-inf")
        self._failing_since: float | None = None
        self._others_write_since: float | None = None
        self._answered_at = time.monotonic()

    def tries(self) -> float:
        """Return the time at which a renewal is about to be sent: the new leases count from here."""
        now = time.monotonic()
        with self._lock:
            self._failing_since = self._failing_since or now
        return now

    def succeeded(self, began: float, *, wrote: bool) -> None:
        """Record that a renewal has succeeded, and whether PostgreSQL changed a row for it."""
        with self._lock:
            self._failing_since = self._others_write_since = None
            if wrote:
                self._proved_at = began

    def proved(self, began: float) -> None:
        """Record that PostgreSQL took a change, sent at that time, which renewed no lease."""
        with self._lock:
            self._proved_at = max(self._proved_at, began)

    def ask(self) -> None:
        """Note this worker's last success; read the others' notes while renewals fail."""
        now, lease = time.monotonic(), self._lease
        with self._lock:
            proved_at, since = self._proved_at, self._failing_since
        try:
            if proved_at > self._noted_at:
                self._witness.note(now - proved_at)
                self._noted_at = proved_at
            if since is not None and now - since > FIRST_DOUBT * lease:
                self._heard(since, now, self._witness.newest_of_others())
        except ERRORS as error:
            log.info("witness_not_heard", error=type(error).__name__)

    def _heard(self, since: float, asked_at: float, age: float | None) -> None:
        with self._lock:
            self._answered_at = asked_at
            is_newer = age is not None and asked_at - age > since + FIRST_DOUBT * self._lease
            if self._failing_since == since and self._others_write_since is None and is_newer:
                self._others_write_since = asked_at - (age or 0.0)

    def guard(self) -> None:
        """End the calls whose leases run out, if another worker may take their steps over."""
        now = time.monotonic()
        overdue = self._in_flight.overdue(now - STOP_AT * self._lease)
        if not overdue or not self._is_cut_off(now):
            return
        self._in_flight.drop(overdue)
        self._metrics.count(names.CUT_OFF_STEPS, len(overdue))
        log.warning("cut_off", steps=len(overdue), help="PostgreSQL cannot be reached; other workers take the steps")

    def _is_cut_off(self, now: float) -> bool:
        with self._lock:
            since, others = self._failing_since, self._others_write_since
            if since is None:
                return False
            if others is not None:
                was_outage = others - since > NO_OUTAGE * self._lease
                return now > others + (TIME_TO_RENEW * self._lease if was_outage else 0.0)
            return now - max(since, self._answered_at) > SILENCE * self._lease
