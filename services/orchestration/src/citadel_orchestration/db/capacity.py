"""Measures of the backlog and of the bytes in the tables. Statements are bounded, or read an index."""

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_common.stores.postgres import Cursor, one

# The planner may not read whole tables: only scans of an index stop at the LIMIT whatever the statistics say.
_INDEXED = (
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
)
# The newest come first: the steps of paused runs, which are not counted, are the oldest and must not fill the LIMIT.
UNBEGUN = """
SELECT coalesce(runs.caller, ''), count(*) FROM (
    (SELECT run_id FROM steps WHERE status = 'ready' ORDER BY lease_until DESC LIMIT %(most)s) UNION ALL
    (SELECT run_id FROM steps WHERE status = 'waiting' AND waiting_for IS NOT NULL LIMIT %(most)s)
) AS unbegun JOIN runs ON runs.run_id = unbegun.run_id WHERE runs.status IN ('queued', 'running') GROUP BY 1
"""
_ENDED = """
SELECT count(*) FROM (SELECT FROM runs WHERE finished_at > now() - make_interval(secs => %s) LIMIT %s) AS ended
"""
_OF_KEY = """
SELECT count(*) FROM (
    SELECT FROM runs WHERE concurrency_key = %s AND finished_at IS NULL LIMIT %s
) AS unfinished
"""
PERIOD = 10.0
"""Seconds over which the rate of runs that end is measured."""
_MOST_ENDED = 20_000


@dataclass(frozen=True, kw_only=True)
class UnbegunSteps:
    """Steps of active runs that are ready and no worker has begun, or that wait for a slot of a resource.

    Attributes:
        by_caller: Their number by the name of the caller who submitted the run; empty for runs by Celery tasks.
        ended_per_second: Runs that ended lately, per second.
    """

    by_caller: Mapping[str, int]
    ended_per_second: float

    @property
    def total(self) -> int:
        """Return their number."""
        return sum(self.by_caller.values())


def unbegun_steps(cursor: Cursor, *, most: int) -> UnbegunSteps:
    """Count steps that have not begun, up to `most` of each kind."""
    cursor.execute(_INDEXED)
    cursor.execute(UNBEGUN, {"most": most})
    by_caller = dict(cursor.fetchall())
    ended = 0
    if sum(by_caller.values()) >= most // 2:
        cursor.execute(_ENDED, [PERIOD, _MOST_ENDED])
        [ended] = one(cursor)
    return UnbegunSteps(by_caller=by_caller, ended_per_second=ended / PERIOD)


def unfinished_of_key(cursor: Cursor, key: str, *, most: int) -> int:
    """Count the runs of a concurrency key that have not ended, up to `most`."""
    cursor.execute(_INDEXED)
    cursor.execute(_OF_KEY, [key, most])
    return int(one(cursor)[0])


def allocated_bytes(cursor: Cursor) -> int:
    """Return the bytes that the tables take on disk, in use or not."""
    cursor.execute("SELECT allocated_bytes()")
    return int(one(cursor)[0])


def stored_bytes(cursor: Cursor) -> int:
    """Return the bytes that runs and accepted tasks hold."""
    cursor.execute("SELECT finished + unfinished FROM stored_bytes()")
    return int(one(cursor)[0])
