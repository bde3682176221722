"""A worker that is cut off from PostgreSQL: its connections stand, and nothing comes through them any more."""

import signal
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import pytest

from citadel_common.errors import Conflict
from tests.support.polling import eventually
from tests.support.relay import Relay

LEASE_S = 2


def ask(query):
    step = {"step_id": "a", "type": "llm_query", "parameters": {"query": query}, "retry": {"max_attempts": 1}}
    return {"steps": [step]}


def through(relay, url):
    """Return a server's URL with the relay's port."""
    return url.replace(f":{urlsplit(url).port}/", f":{relay.port}/")


class Partition:
    """A platform; workers of `cut_off` reach the stores through relays that can go dead."""

    def __init__(self, platform, stack):
        self.platform, self.llm = platform, platform.doubles.llm
        self.postgres = stack.enter_context(Relay(urlsplit(platform.dsn).port))
        self.redis = stack.enter_context(Relay(platform.redis.port))
        self._stack = stack

    def cut_off(self, *, redis=False):
        """Return a worker on the side that is cut off, from Redis too if asked."""
        settings = {"POSTGRES_DSN": through(self.postgres, self.platform.dsn), "POSTGRES__TIMEOUT": 1}
        if redis:
            settings |= {"BROKER_URL": through(self.redis, self.platform.redis.url), "STORES__TIMEOUT": 1}
        return self._started(**settings)

    def other(self):
        """Return a worker on the other side."""
        return self._started()

    def _started(self, **settings):
        worker = self.platform.orchestration(**settings)
        self._stack.callback(worker.kill)
        return worker

    def begin(self, query):
        """Begin a run whose question hangs in a worker."""
        run_id = self.platform.begin(ask(query))
        self._stack.callback(self._end, run_id)
        eventually(lambda: self.llm.stats()["prompt_counts"].get(query) == 1)
        return run_id

    def _end(self, run_id):
        with suppress(Conflict):  # it has ended
            self.platform.db.commands.cancel(run_id)

    def lease_ran_out(self, run_id):
        """Return whether the run's step has no lease any more."""
        lapsed = "SELECT lease_until < now() FROM steps WHERE run_id = %s AND status = 'running'"
        return self.platform.db.rows(lapsed, run_id) == [(True,)]


@pytest.fixture
def partition(platform):
    platform.doubles.reset()
    with ExitStack() as stack:
        yield Partition(platform, stack)


@pytest.mark.parametrize("direction", ["requests", "answers", "both"])
def test_a_call_ends_before_another_worker_makes_it_again(partition, direction):
    worker = partition.cut_off()
    partition.llm.behaviour("hang")
    partition.begin(direction)
    partition.other()
    partition.postgres.vanish(requests=direction != "answers", answers=direction != "requests")
    eventually(lambda: partition.llm.stats()["prompt_counts"][direction] == 2)
    assert worker.events("cut_off")
    assert partition.llm.stats()["max_in_flight"] == 1


def test_a_call_ends_if_the_broker_is_out_of_reach_too(partition):
    worker = partition.cut_off(redis=True)
    partition.llm.behaviour("hang")
    partition.begin("alone")
    partition.other()
    partition.postgres.vanish()
    partition.redis.vanish()
    eventually(lambda: partition.llm.stats()["prompt_counts"]["alone"] == 2)
    assert worker.events("cut_off")
    assert partition.llm.stats()["max_in_flight"] == 1


def test_an_answer_that_comes_late_changes_nothing_and_is_counted(partition):
    """The call ends while its worker is cut off; the other worker stands still until then."""
    worker, other = partition.cut_off(), partition.other()
    partition.llm.behaviour("slow", delay_ms=600)
    other.signal(signal.SIGSTOP)
    run_id = partition.begin("late")
    partition.postgres.vanish()
    other.signal(signal.SIGCONT)
    assert partition.platform.db.ended(run_id) == "succeeded"
    before = partition.platform.db.events(run_id)
    partition.postgres.heal()
    eventually(lambda: worker.events("late_result"))
    assert partition.platform.db.events(run_id) == before
    partition.platform.db.assert_recorded_once(run_id)


def test_no_call_ends_while_nobody_can_take_its_step_over(partition):
    """Both workers are cut off, so the call is paid for once."""
    workers = [partition.cut_off(), partition.cut_off()]
    partition.llm.behaviour("slow", delay_ms=1000 * 3 * LEASE_S)
    run_id = partition.begin("patient")
    partition.postgres.vanish()
    eventually(lambda: partition.lease_ran_out(run_id))
    eventually(lambda: not partition.llm.stats()["in_flight"])
    partition.postgres.heal()
    assert partition.platform.db.ended(run_id) == "succeeded"
    assert partition.llm.stats()["prompt_counts"]["patient"] == 1
    assert [worker.events("cut_off") for worker in workers] == [[], []]
