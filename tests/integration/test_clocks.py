"""Workers on hosts whose clocks are wrong, or are set while tasks run: nobody is judged dead, no task runs twice."""

import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import TaskRevokedError

from citadel_common.delivery.worker_registry import WORKERS
from tests.support.accepting import Accepting
from tests.support.assertions import assert_vectors
from tests.support.celery_client import error_of
from tests.support.fleet import open_fleet
from tests.support.host_clock import HOUR, HostClock
from tests.support.polling import eventually

TASK = "generate_embedding"
STEPS = [HOUR, -HOUR, 30.0]
WRONG = ("dead_workers_tasks_returned", "accepted_task_republished")
ENOUGH_BEATS = 10
"""More than fit into `WORKER__DEAD_AFTER` of the tests: silence of that length would be death."""


class Hosts:
    """A host whose clock tests set, and one whose clock is right, each with a worker."""

    def __init__(self, fleet, stack):
        self.fleet, self.double, self.plain = fleet, fleet.double, fleet.plain
        self.clock = stack.enter_context(HostClock())
        with self.clock.host():
            self.workers = [fleet.start()]
        self.workers.append(fleet.start())
        self.store = stack.enter_context(fleet.redis.client())
        self.texts = []

    def reset(self):
        self.texts = [str(uuid.uuid4()) for _ in range(8)]
        self.clock.step(-self.clock.offset)
        self.double.reset()
        self.counted = {
            name: self.logged(name) for name in ("dead_workers_tasks_returned", "accepted_task_republished")
        }

    def logged(self, event):
        return sum(len(worker.events(event)) for worker in self.workers)

    def let_both_beat(self):
        """Wait until each worker has beaten, and looked at the other, for longer than silence may last."""
        before = self.store.hgetall(WORKERS)
        assert len(before) == len(self.workers), "a worker that was judged dead is forgotten until its next beat"
        seen = dict.fromkeys(before, 0)

        def both_have():
            now = self.store.hgetall(WORKERS)
            for name in now.keys() & before:
                seen[name] += now[name] != before[name]
            before.update(now)
            return min(seen.values()) >= ENOUGH_BEATS

        eventually(both_have)

    def begin(self, send):
        """Let a task begin for each text that takes long enough for what follows; return what `send` returns."""
        self.double.behaviour("slow", delay_ms=3500)
        sent = [send(text) for text in self.texts]
        eventually(lambda: self.double.stats()["requests"])
        return sent

    def assert_each_ran_once(self, tasks):
        for text, task in zip(self.texts, tasks, strict=True):
            assert_vectors(task.get(timeout=60), [text])
        [counts] = self.double.stats()["embedded_counts"].values()
        assert counts == dict.fromkeys(self.texts, 1)
        assert self.store.keys("citadel:deliveries:*") == []
        assert {name: self.logged(name) for name in self.counted} == self.counted


@pytest.fixture(scope="module")
def both(redis_server, ollama):
    with open_fleet(redis_server, ollama) as fleet, ExitStack() as stack:
        yield Hosts(fleet, stack)


@pytest.fixture
def hosts(both):
    both.reset()
    return both


@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_while_tasks_run_makes_nobody_dead(hosts, step):
    tasks = hosts.begin(lambda text: hosts.plain.publish(TASK, [text]))
    hosts.clock.step(step)
    hosts.let_both_beat()
    hosts.assert_each_ran_once(tasks)


@pytest.mark.parametrize("step", STEPS)
def test_leases_of_accepted_tasks_last_whatever_the_clock_of_their_worker_says(hosts, step):
    hosts.clock.step(step)
    with Accepting(hosts.fleet) as accepting:

        def accept(text):
            message = accepting.accept(text)
            accepting.publish(message)
            return accepting.result(message)

        tasks = hosts.begin(accept)
        hosts.let_both_beat()
        hosts.assert_each_ran_once(tasks)
        eventually(accepting.has_forgotten)


def test_deadlines_expiries_and_countdowns_are_the_brokers(hosts):
    """The worker on the right host is gone for a while, so that the other one gets every task."""
    hosts.workers[1].terminate()
    try:
        for offset in (HOUR, -2 * HOUR):
            hosts.clock.step(offset)
            check_deadlines_and_expiries(hosts)
            check_countdown(hosts)
    finally:
        hosts.workers[1] = hosts.fleet.start()


def check_deadlines_and_expiries(hosts):
    now = hosts.store.time()[0]
    hosts.double.behaviour("ok")
    text, *_ = hosts.texts
    in_time = hosts.plain.publish(TASK, [text], headers={"citadel_deadline": now + 30}, expires=30)
    assert_vectors(in_time.get(timeout=60), [text])
    expired = hosts.plain.publish(TASK, ["late"], expires=datetime.now(UTC) - timedelta(seconds=1))
    assert isinstance(expired.get(timeout=60, propagate=False), TaskRevokedError)
    hosts.double.behaviour("hang")
    waiting = hosts.plain.publish(TASK, [f"hangs {hosts.clock.offset}"], headers={"citadel_deadline": now + 2})
    assert error_of(waiting).startswith("DeadlineExceeded: ")


def check_countdown(hosts):
    """It is neither over an hour early nor waited for an hour."""
    hosts.double.behaviour("ok")
    began = hosts.store.time()
    assert hosts.plain.publish(TASK, [hosts.texts[1]], countdown=1.5).get(timeout=60)["success"]
    ended = hosts.store.time()
    assert ended[0] - began[0] + (ended[1] - began[1]) / 1e6 >= 1.5
