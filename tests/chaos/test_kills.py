"""Workers are killed and stopped while a plain Celery client sends: every task is answered, nothing stays held.

The test of many tasks runs in `make chaos`; `TASKS` says how many it sends.
"""

import itertools
import os
import signal
import time

import pytest

from tests.support.plain_workers import ManyTasks, open_plain_workers
from tests.support.polling import eventually

KILL_EVERY = 2.0
STOP_EVERY = 10
STOPPED_FOR = 40.0


@pytest.fixture
def workers(redis_server):
    with open_plain_workers(redis_server) as workers:
        yield workers


def until(at, tasks):
    """Wait for a time; return whether tasks are unanswered then."""
    eventually(lambda: time.monotonic() >= at)
    return bool(tasks.unanswered)


def storm(workers, tasks, *, kill_every, stopped_for):
    """Kill a worker every few seconds, and stop one for a while now and then, as long as tasks are unanswered."""
    running = [workers.start() for _ in range(3)]
    stopped = []
    for number in itertools.count():
        if not until(time.monotonic() + kill_every, tasks):
            return
        if number % STOP_EVERY == 1:
            running[-1].signal(signal.SIGSTOP)
            stopped.append((time.monotonic() + stopped_for, running.pop()))
            running.append(workers.start())
        while stopped and stopped[0][0] <= time.monotonic():
            stopped.pop(0)[1].signal(signal.SIGCONT)
        running.pop(0).kill()
        running.append(workers.start())


def assert_nothing_is_left(workers, tasks):
    assert tasks.unanswered == []
    eventually(lambda: (workers.held(), workers.waiting()) == (0, 0))


def test_every_task_is_answered_while_workers_are_killed_and_stopped(workers):
    tasks = ManyTasks(workers, 3000)
    storm(workers, tasks, kill_every=0.5, stopped_for=4.0)
    assert_nothing_is_left(workers, tasks)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_every_one_of_many_tasks_is_answered(workers):
    tasks = ManyTasks(workers, int(os.environ.get("TASKS", "50000")))
    storm(workers, tasks, kill_every=KILL_EVERY, stopped_for=STOPPED_FOR)
    assert_nothing_is_left(workers, tasks)
