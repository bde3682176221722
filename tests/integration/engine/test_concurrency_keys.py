"""Concurrency keys: first come, first served, never more than the limit, whatever ends, pauses or crashes."""

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from citadel_common.errors import Conflict, InvalidInput
from citadel_orchestration.db import concurrency_keys, runs
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.sub_runs import SubRuns, sub_run
from citadel_orchestration.engine.submission import new_run_id
from citadel_orchestration.engine.transactions import RunTransactions
from citadel_orchestration.step_types import StartRun
from tests.support.polling import eventually

KEY = "tenant"
STEP = {"step_id": "a", "type": "wait", "parameters": {"signal": "go"}, "retry": {"max_attempts": 1}}
MANY = 10_000
FEW = 100
"""Rows that may be touched however many runs are in line."""


def submit(db, count=1, *, limit=1, key=KEY, **others):
    definition = {"steps": [STEP], "concurrency": {"key": key, "limit": limit}} | others
    return [db.submit(definition) for _ in range(count)]


def started(db, run_ids):
    return [db.steps(run_id)["a"] != "pending" for run_id in run_ids]


def end(db, run_id):
    """End a run, and do what its worker does then; return the runs that start."""
    return release(db, db.commands.cancel(run_id).freed_key)


def release(db, key=KEY):
    return [effects.claims[0].ref.run_id for effects in db.commands.release(key)]


def keys(db, after=""):
    with db.database.cursor() as cursor:
        concurrency_keys.sort_in(cursor)
        return concurrency_keys.keys_in_line(cursor, after=after)


def place(db, run_id):
    with db.database.cursor() as cursor:
        return concurrency_keys.place_of(cursor, run_id)


@pytest.mark.parametrize("limit", [1, 3])
def test_runs_start_in_the_order_of_their_submission(db, limit):
    run_ids = submit(db, 50, limit=limit)
    assert started(db, run_ids) == [True] * limit + [False] * (50 - limit)
    following = [run_id for run_id in run_ids for run_id in end(db, run_id)]
    assert following == run_ids[limit:]


def test_the_end_of_a_run_starts_one_other(db):
    run_ids = submit(db, 6, limit=2)
    assert end(db, run_ids[0]) == [run_ids[2]]
    assert release(db) == []


def test_a_submission_does_not_overtake_the_line_although_there_is_room(db):
    run_ids = submit(db, 2)
    db.commands.cancel(run_ids[0])
    run_ids += submit(db)
    assert started(db, run_ids[1:]) == [False, False]
    assert release(db) == [run_ids[1]]


def test_a_run_does_not_overtake_one_with_a_smaller_limit(db):
    [first], [small], [large] = submit(db, limit=3), submit(db, limit=1), submit(db, limit=3)
    assert started(db, [first, small, large]) == [True, False, False]
    assert release(db) == []
    assert end(db, first) == [small, large]


def test_a_clock_that_was_set_back_does_not_change_the_order(db):
    run_ids = submit(db, 2)
    db.rows("UPDATE runs SET held_since = now() + interval '1 hour' WHERE run_id = %s", run_ids[1])
    run_ids += submit(db)
    assert [end(db, run_id) for run_id in run_ids] == [[run_ids[1]], [run_ids[2]], []]


@pytest.mark.parametrize("command", ["cancel", "time_out", "pause"])
def test_a_run_that_gives_way_lets_those_behind_it_pass(db, command):
    [active] = submit(db, limit=2)
    [head] = submit(db, limit=1)
    [behind] = submit(db, limit=2)
    db.rows("UPDATE runs SET deadline_at = now() - interval '1 second' WHERE run_id = %s", head)
    effects = getattr(db.commands, command)(head)
    assert release(db, effects.freed_key) == [behind]
    assert started(db, [active, behind]) == [True, True]


def test_a_paused_run_comes_back_to_its_place(db):
    run_ids = submit(db, 4)
    db.commands.pause(run_ids[1])
    assert end(db, run_ids[0]) == [run_ids[2]]
    db.commands.resume(run_ids[1])
    assert end(db, run_ids[2]) == [run_ids[1]]
    assert place(db, run_ids[3]).position == 1


def test_a_resumed_run_starts_if_there_is_room(db):
    run_ids = submit(db, 2)
    db.commands.pause(run_ids[1])
    assert end(db, run_ids[0]) == []
    assert release(db, db.commands.resume(run_ids[1]).freed_key) == [run_ids[1]]


def test_a_run_shows_its_place_in_line(db):
    run_ids = submit(db, 4)
    assert [place(db, run_id) and place(db, run_id).position for run_id in run_ids] == [None, 1, 2, 3]
    shown = place(db, run_ids[3])
    assert (shown.concurrency_key, shown.limit) == (KEY, 1)
    end(db, run_ids[0])
    assert [place(db, run_id) and place(db, run_id).position for run_id in run_ids[1:]] == [None, 1, 2]


def test_a_run_that_cannot_start_fails_and_does_not_stop_the_line(db):
    run_ids = submit(db, 3)
    db.rows(
        """UPDATE runs SET definition = '{"steps": [{"step_id": "a", "type": "gone"}]}' WHERE run_id = %s""", run_ids[1]
    )
    db.commands.cancel(run_ids[0])
    db.commands.release(KEY)
    assert db.error(run_ids[1])["code"] == "invalid_definition"
    db.commands.release(KEY)
    assert started(db, run_ids[2:]) == [True]


class TestRepair:
    def test_a_release_that_a_crash_has_prevented_is_found(self, db):
        run_ids = submit(db, 3)
        assert keys(db) == [(KEY, False)]
        db.commands.cancel(run_ids[0])
        assert keys(db) == [(KEY, True)]
        release(db)
        assert keys(db) == [(KEY, False)]

    def test_all_keys_are_looked_at_in_turn(self, db):
        names = [f"k{number:03}" for number in range(concurrency_keys.MOST_KEYS + 20)]
        for name in names:
            submit(db, 2, key=name)
        first = keys(db)
        rest = keys(db, after=first[-1][0])
        assert [key for key, _ in [*first, *rest]] == names
        assert len(rest) == 20

    def test_runs_of_an_older_version_are_put_in_line_in_their_order(self, db):
        run_ids = submit(db, 4)
        db.rows("UPDATE runs SET held_since = DEFAULT")  # an older version does not name the column
        run_ids += submit(db)
        assert started(db, run_ids) == [True, False, False, False, False]
        assert keys(db) == [(KEY, False)]
        assert [end(db, run_id) for run_id in run_ids] == [[run_id] for run_id in run_ids[1:]] + [[]]

    def test_a_run_that_an_older_version_has_started_is_active(self, db):
        run_ids = submit(db, 3)
        db.rows("UPDATE steps SET status = 'running' WHERE run_id = %s", run_ids[1])
        db.rows("UPDATE runs SET status = 'running' WHERE run_id = %s", run_ids[1])
        assert end(db, run_ids[0]) == []
        assert end(db, run_ids[1]) == [run_ids[2]]


def test_runs_that_end_at_once_never_let_more_start_than_the_limit(db):
    limit, count = 3, 60
    run_ids = submit(db, count, limit=limit)
    active = (
        "SELECT count(*) FROM runs WHERE finished_at IS NULL AND EXISTS"
        " (SELECT FROM steps WHERE steps.run_id = runs.run_id AND steps.status <> 'pending')"
    )
    seen = []

    def end_some(_):
        while running := db.rows("SELECT run_id FROM runs WHERE status = 'running'"):
            with contextlib.suppress(Conflict):  # another thread was faster
                end(db, random.choice(running)[0])
            seen.append(db.rows(active)[0][0])

    for run_id in run_ids[:limit]:
        db.transitions.start(StepRef(run_id=run_id, step_id="a"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(end_some, range(4)))
    assert max(seen) <= limit
    assert set(db.statuses().values()) == {"cancelled"}


class TestRaces:
    """Two transactions on a key: the second one waits for the first, and then sees what it has done."""

    WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    @contextlib.contextmanager
    def uncommitted(self, db):
        """Submit a run in a transaction that is committed at the end of the block."""
        definition = {"steps": [STEP], "concurrency": {"key": KEY}}
        run = db.submissions.run_of(db.submissions.check(definition), run_id=new_run_id())
        with db.database.cursor() as cursor:
            yield runs.submit(cursor, run, republish=60.0)

    def beside(self, db, act):
        """Begin a call in another thread; return once it waits for the key, or has ended."""
        call = self.threads.submit(act)
        eventually(lambda: call.done() or db.rows(self.WAITING))
        return call

    @pytest.fixture(autouse=True)
    def _threads(self):
        with ThreadPoolExecutor(1) as self.threads:
            yield

    def test_of_two_submissions_at_once_one_starts(self, db):
        with self.uncommitted(db) as first:
            second = self.beside(db, lambda: submit(db))
        assert started(db, [first.run_id, *second.result()]) == [True, False]

    def test_a_run_that_comes_into_line_while_the_last_active_one_ends_starts(self, db):
        [active] = submit(db)
        with self.uncommitted(db) as held:
            ended = self.beside(db, lambda: end(db, active))
        assert ended.result() == [held.run_id]


class TestSubRuns:
    """A sub-run that its step had before a retry, and its concurrency key."""

    def begun(self, db, inner):
        step = {"step_id": "s", "type": "workflow", "parameters": {"definition": "${{ context.inner }}"}}
        parent = db.submit({"steps": [step | {"retry": {"max_attempts": 1}}], "context": {"inner": inner}})
        return db.transitions.start(StepRef(run_id=parent, step_id="s")).claims[0]

    def test_a_sub_run_that_goes_on_waits_in_line(self, db, sub_runs):
        inner = {"steps": [STEP], "concurrency": {"key": KEY}}
        claim = self.begun(db, inner)
        run = sub_run(db.submissions, claim, StartRun(definition=inner))
        sub_runs.start(claim.ref, claim.attempt, run)
        [step] = db.transitions.start(StepRef(run_id=run.run_id, step_id="a")).claims
        db.transitions.fail(step.ref, step.attempt, InvalidInput("no"))
        sub_runs.report(run.parent, run.run_id)
        [other] = submit(db)
        assert started(db, [other]) == [True]
        [again] = db.commands.retry(claim.ref.run_id, deadline=None).claims
        sub_runs.start(again.ref, again.attempt, sub_run(db.submissions, again, StartRun(definition=inner)))
        assert db.status(run.run_id) == "queued"
        assert place(db, run.run_id).position == 1
        assert end(db, other) == [run.run_id]
        assert db.status(run.run_id) == "running"


class OneTransaction:
    """A database of one transaction, whose work can be counted."""

    def __init__(self, connection):
        self.connection = connection

    @contextlib.contextmanager
    def cursor(self):
        with self.connection.cursor() as cursor:
            yield cursor

    def rows_touched(self, act):
        """Return how many rows and index entries of runs and steps a call reads."""
        query = (
            "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class WHERE oid IN ('runs'::regclass,"
            " 'steps'::regclass) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ('runs'::regclass,"
            " 'steps'::regclass))"
        )
        before = self.connection.execute(query).fetchone()[0]
        act()
        return self.connection.execute(query).fetchone()[0] - before


@pytest.fixture
def sub_runs(db):
    return SubRuns(transactions(db, db.database), db.transitions)


def transactions(db, database):
    return RunTransactions(database=database, definitions=db.definitions, owner="another worker", lease=60.0)


@pytest.fixture(params=[1, 10])
def long_line(request, db, postgres_dsn):
    """A line of 10,000 runs behind as many active ones as the limit allows."""
    run_ids = submit(db, request.param + 1, limit=request.param)
    columns = "kind, workflow_id, status, lane, labels, fingerprint, concurrency_key, concurrency_limit, depth"
    rest = "definition, context, steps_total, unfinished, last_event"
    db.rows(
        f"INSERT INTO runs (run_id, {columns}, {rest}, held_since) SELECT gen_random_uuid(), {columns}, {rest},"
        " held_since + n * interval '1 microsecond' FROM runs, generate_series(1, %s) AS n WHERE run_id = %s",
        MANY,
        run_ids[-1],
    )
    db.rows(
        "INSERT INTO steps (run_id, step_id, item, position, status)"
        " SELECT run_id, 'a', -1, 0, 'pending' FROM runs ON CONFLICT DO NOTHING"
    )
    with psycopg.connect(postgres_dsn) as connection:
        yield run_ids, OneTransaction(connection)


def test_the_work_of_an_end_does_not_grow_with_the_line(db, long_line):
    run_ids, database = long_line
    commands = RunCommands(transactions(db, database))
    released = []

    def end_one():
        released.extend(commands.release(commands.cancel(run_ids[0]).freed_key))

    assert database.rows_touched(end_one) < FEW
    assert [effects.claims[0].ref.run_id for effects in released] == [run_ids[-1]]


def test_the_work_of_a_submission_and_of_a_sweep_does_not_grow_with_the_line(db, long_line):
    _, database = long_line
    definition = {"steps": [STEP], "concurrency": {"key": KEY, "limit": 10}}
    commands = RunCommands(transactions(db, database))

    def submit_one():
        run = db.submissions.run_of(db.submissions.check(definition), run_id=new_run_id())
        assert commands.submit(run).ready == []

    def sweep():
        with database.cursor() as cursor:
            concurrency_keys.sort_in(cursor)
            assert concurrency_keys.keys_in_line(cursor, after="") == [(KEY, False)]

    assert database.rows_touched(submit_one) < FEW
    assert database.rows_touched(sweep) < FEW
