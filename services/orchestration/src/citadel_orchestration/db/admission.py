"""Statements on slots of resources, and on the steps that wait for them.

A resource has a number of slots for all workers together. A step that finds none free waits in its row, held by no
worker, and the worker that frees a slot takes the step whose turn it is. Whoever sweeps looks for turns that were
missed. Steps of one run take turns with those of other runs; those of a more urgent lane go first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from citadel_common.stores.postgres import Database
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.db.transaction import RunTransaction

LANE_SPAN = 2**40
"""Turns in one lane."""
_ENSURE = """
WITH known AS (
    INSERT INTO resources (resource, most) VALUES (%(resource)s, %(most)s)
    ON CONFLICT (resource) DO UPDATE SET most = excluded.most
)
INSERT INTO slots (resource, number) SELECT %(resource)s, number FROM generate_series(0, %(most)s - 1) AS number
ON CONFLICT DO NOTHING
"""
# Steps that wait go first: a step that comes later gets no slot while one is in the queue.
_ACQUIRE = """
UPDATE slots SET token = %s, owner = %s, lease_until = now() + make_interval(secs => %s)
WHERE (resource, number) = (
    SELECT resource, number FROM slots WHERE resource = %s AND number < %s AND token IS NULL
        AND NOT EXISTS (SELECT FROM resources WHERE resource = slots.resource AND cooling_until > now())
        AND (%s OR NOT EXISTS (SELECT FROM steps WHERE waiting_for = slots.resource AND status = 'waiting'))
    LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING number
"""
_RENEW = """
UPDATE slots SET lease_until = now() + make_interval(secs => %s) WHERE owner = %s AND token = ANY(%s::uuid[])
RETURNING token
"""
_FREE = "UPDATE slots SET token = NULL, owner = NULL, lease_until = NULL WHERE {} RETURNING number"
_RELEASE = _FREE.format("token = ANY(%s::uuid[])")
_RELEASE_ALL = _FREE.format("owner = %s")
_RELEASE_EXPIRED = _FREE.format("lease_until < now()")
_ACTIVE = "EXISTS (SELECT FROM runs WHERE runs.run_id = steps.run_id AND runs.status IN ('queued', 'running'))"
_NEXT = f"""
SELECT run_id, step_id, item, attempt FROM steps WHERE waiting_for = %s AND status = 'waiting' AND {_ACTIVE}
ORDER BY turn, waiting_since LIMIT 1
"""  # noqa: S608  (constants only)
_SERVABLE = f"""
SELECT name FROM unnest(%s::text[]) AS name
WHERE EXISTS (SELECT FROM slots JOIN resources USING (resource) WHERE resource = name AND number < most
        AND token IS NULL AND (cooling_until IS NULL OR cooling_until <= now()))
    AND EXISTS (SELECT FROM steps WHERE waiting_for = name AND status = 'waiting' AND {_ACTIVE})
"""  # noqa: S608  (constants only)
_COOL = """
UPDATE resources SET cooling_until = greatest(cooling_until, now() + make_interval(secs => %s)) WHERE resource = %s
RETURNING resource
"""
# The first turn of a run is the one that is served now; each further one comes a turn later.
_QUEUE = """
UPDATE steps SET status = 'waiting', waiting_for = %(resource)s, waiting_since = now(), uncounted = uncounted + 1,
    attempt_started_at = NULL, lease_owner = NULL, lease_until = NULL,
    start_by = coalesce(start_by, now() + make_interval(secs => %(patience)s)),
    due_at = coalesce(start_by, now() + make_interval(secs => %(patience)s)),
    turn = greatest(%(first)s,
        (SELECT min(turn) FROM steps WHERE waiting_for = %(resource)s AND status = 'waiting'
            AND turn >= %(first)s AND turn < %(last)s),
        (SELECT max(turn) + 1 FROM steps WHERE run_id = %(run_id)s AND waiting_for = %(resource)s
            AND status = 'waiting' AND turn >= %(first)s AND turn < %(last)s))
WHERE run_id = %(run_id)s AND step_id = %(step_id)s AND item = %(item)s AND attempt = %(attempt)s
    AND status = 'running'
"""
_UNQUEUE = """
UPDATE steps SET status = 'pending', waiting_for = NULL, waiting_since = NULL, turn = NULL, start_by = NULL,
    due_at = NULL
WHERE run_id = %s AND status = 'waiting' AND waiting_for IS NOT NULL
"""
_OCCUPANCY = """
SELECT count(token), max(most), greatest(0, extract(epoch FROM max(cooling_until) - now()))::float8
FROM slots JOIN resources USING (resource) WHERE resource = %s
"""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The slots of a resource, as one process asks for them; thread-safe.

    Attributes:
        database: Where they are.
        owner: The process that takes them.
        lease: Seconds that a slot is kept without renewal.
    """

    database: Database
    owner: str
    lease: float

    def ensure(self, resource: str, most: int) -> None:
        """Insert the slots of a resource that are missing, and record how many it has."""
        with self.database.cursor() as cursor:
            cursor.execute(_ENSURE, {"resource": resource, "most": most})

    def acquire(self, resource: str, most: int, token: UUID, *, in_turn: bool) -> bool:
        """Take a free slot; return False if there is none, or the resource is left alone.

        Args:
            resource: Its name.
            most: Its slots; those beyond belong to an older setting and end.
            token: Names the holder.
            in_turn: True for a step out of the queue; others get no slot while a step waits.
        """
        return bool(self.database.rows(_ACQUIRE, [token, self.owner, self.lease, resource, most, in_turn]))

    def release(self, token: UUID) -> None:
        """Free a slot; one that was lost stays with its new holder."""
        self.database.rows(_RELEASE, [[token]])

    def release_all(self) -> None:
        """Free all slots of this process."""
        self.database.rows(_RELEASE_ALL, [self.owner])

    def release_expired(self) -> int:
        """Free the slots of processes that are gone; return their number."""
        return len(self.database.rows(_RELEASE_EXPIRED, []))

    def renew(self, tokens: Sequence[UUID]) -> set[UUID]:
        """Extend the leases of slots; return those that are still this process's."""
        rows = self.database.rows(_RENEW, [self.lease, self.owner, list(tokens)])
        return {token for (token,) in rows}

    def cool_down(self, resource: str, seconds: float) -> None:
        """Let nothing start at a resource for so many seconds; a cool-down that lasts longer stays as it is."""
        self.database.rows(_COOL, [seconds, resource])

    def next_step(self, resource: str) -> tuple[StepRef, int] | None:
        """Return the step whose turn it is, with its attempt; None if none waits."""
        rows = self.database.rows(_NEXT, [resource])
        return None if not rows else (StepRef(run_id=rows[0][0], step_id=rows[0][1], item=rows[0][2]), rows[0][3])

    def servable(self, resources: Sequence[str]) -> list[str]:
        """Return the resources that have a free slot and a step that waits for it."""
        return [name for (name,) in self.database.rows(_SERVABLE, [list(resources)])]


def queue(tx: RunTransaction, ref: StepRef, attempt: int, resource: str, *, patience: float) -> bool:
    """Let a running step wait for a slot, `patience` seconds from its first wait on; False if its attempt is over."""
    if tx.run.is_finished:
        return False
    first = tx.run.lane * LANE_SPAN
    place = {"run_id": ref.run_id, "step_id": ref.step_id, "item": ref.item, "attempt": attempt}
    values = {"resource": resource, "patience": patience, "first": first, "last": first + LANE_SPAN}
    tx.cursor.execute(_QUEUE, place | values)
    return tx.cursor.rowcount > 0


def unqueue(tx: RunTransaction) -> None:
    """Make the steps of a run pending that wait for a slot: the run is paused, and their waits begin anew."""
    tx.cursor.execute(_UNQUEUE, [tx.run.run_id])


def occupancy(tx: RunTransaction, resource: str) -> str:
    """Return how busy a resource is, in words."""
    tx.cursor.execute(_OCCUPANCY, [resource])
    held, most, cooling = tx.cursor.fetchone() or (0, None, None)
    if most is None:
        return "none had room for it; check that orchestration workers run"
    if cooling:
        return f"it is to be left alone for {cooling:.3g} s more"
    return f"{held} of its {most} slots in the fleet are taken"
