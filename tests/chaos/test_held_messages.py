"""What workers hold of a plain Celery client's tasks: nothing is lost, kept for ever, or begun by one that lost it."""

import signal

import pytest

from citadel_common.delivery.queues import lists_of
from citadel_common.delivery.worker_registry import WORKERS, WorkerRegistry, held_message_keys
from tests.support.plain_workers import ManyTasks, open_plain_workers
from tests.support.polling import eventually
from tests.support.programs.plain_worker import QUEUE
from tests.support.worker import FAST

LANES = (0, 3, 6, 9)
DEAD_AFTER = float(FAST["WORKER__DEAD_AFTER"])


@pytest.fixture
def workers(redis_server):
    with open_plain_workers(redis_server) as workers:
        yield workers
        with redis_server.client() as store:
            store.config_set("maxmemory", 0)


@pytest.fixture
def store(redis_server):
    with redis_server.client() as client:
        yield client


def waiting_connections(store):
    return [client for client in store.client_list() if client["cmd"].partition("|")[0] == "blmove"]


def calls(store, command):
    return store.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def answers(tasks):
    return [task.get(timeout=60) for task in tasks]


def test_a_worker_at_rest_waits_in_redis_and_asks_for_nothing(workers, store):
    workers.start(WORKER__HEARTBEAT_INTERVAL=3600)
    eventually(lambda: len(waiting_connections(store)) == len(LANES))
    # Each taking asks if the worker is registered; timers have a script of their own.
    takings, rounds = calls(store, "hexists"), calls(store, "blmove") + 2 * len(LANES)
    eventually(lambda: calls(store, "blmove") >= rounds)
    assert calls(store, "hexists") == takings


def test_messages_that_arrive_for_a_stopped_worker_at_rest_are_done_by_another(workers, store):
    stopped = workers.start()
    eventually(lambda: len(waiting_connections(store)) == len(LANES))
    stopped.signal(signal.SIGSTOP)
    tasks = [workers.send(f"lane {priority}", priority=priority) for priority in LANES]
    eventually(lambda: workers.held() == len(LANES))
    workers.start()
    assert answers(tasks) == [f"lane {priority}" for priority in LANES]
    eventually(lambda: workers.held() == 0)


@pytest.mark.parametrize("tag", ["0-0123456789ab-0", "a tag of its publisher"])
def test_a_message_that_a_worker_holds_and_does_not_know_of_is_given_back(workers, store, tag):
    """As after a connection that broke between the script and its answer; in the form of older workers too."""
    workers.start()
    [worker_id] = [name.decode() for name in store.hkeys(WORKERS)]
    task = workers.plain.publish("plain.echo", ["lost on its way"], queue="elsewhere")
    [entry] = store.lrange("elsewhere", 0, -1)
    store.hset(held_message_keys(worker_id)["unacked_key"], tag, b"[" + entry + b',"","embeddings"]')
    assert task.get(timeout=60) == "lost on its way"
    eventually(lambda: workers.held() == 0)


def stopped_with_tasks(workers):
    """A worker that was stopped while its only thread runs the first of several tasks, and those tasks."""
    stopped = workers.start(WORKER__CONCURRENCY=1, WORKER__PREFETCH=5)
    tasks = [workers.send(f"t{number}", seconds=0.5 if number == 0 else 0.0) for number in range(5)]
    eventually(lambda: workers.held() == len(tasks))
    stopped.signal(signal.SIGSTOP)
    return stopped, tasks


def test_a_worker_that_was_stopped_begins_nothing_that_others_have_done(workers):
    stopped, tasks = stopped_with_tasks(workers)
    workers.start()
    assert answers(tasks) == [f"t{number}" for number in range(5)]
    stopped.signal(signal.SIGCONT)
    eventually(lambda: len(stopped.events("message_no_longer_held")) == len(tasks) - 1)
    assert workers.send("after it").get(timeout=60) == "after it"
    eventually(lambda: workers.held() == 0)


def test_a_worker_that_was_stopped_goes_on_with_what_nobody_took(workers, store):
    stopped, tasks = stopped_with_tasks(workers)
    [beat] = WorkerRegistry(store).all()
    eventually(lambda: beat.silence(store.time()[0]) > DEAD_AFTER)
    stopped.signal(signal.SIGCONT)
    assert answers(tasks) == [f"t{number}" for number in range(5)]
    assert stopped.events("message_no_longer_held") == []


def test_no_task_is_lost_when_all_connections_are_cut_again_and_again(workers, store):
    for _ in range(2):
        workers.start()
    tasks = ManyTasks(workers, 2000)
    while tasks.unanswered:
        for client in store.client_list():
            if client["cmd"].partition("|")[0] in {"blmove", "brpop", "evalsha", "hdel", "zrem"}:
                store.client_kill_filter(_id=client["id"])
    assert tasks.unanswered == []
    eventually(lambda: (workers.held(), workers.waiting()) == (0, 0))


def test_tasks_that_run_when_the_connection_is_cut_are_not_given_back(workers, store):
    worker = workers.start(WORKER__CONCURRENCY=2)
    tasks = [workers.send(f"t{number}", seconds=3.0) for number in range(2)]
    eventually(lambda: workers.held() == 2)
    for client in store.client_list():
        store.client_kill_filter(_id=client["id"], skipme=True)
    late = workers.send("late")
    assert answers([*tasks, late]) == ["t0", "t1", "late"]
    eventually(lambda: workers.held() == 0)
    assert worker.events("forgotten_messages_returned") == []


def test_a_full_redis_is_worked_off(workers, store):
    tasks = [workers.send(f"t{number}" * 1000) for number in range(20)]
    store.config_set("maxmemory", 1)
    worker = workers.start()
    eventually(lambda: workers.waiting() == 0)
    store.config_set("maxmemory", 0)
    assert answers(tasks) == [f"t{number}" * 1000 for number in range(20)]
    assert not worker.is_over


def test_a_worker_takes_on_at_once_after_redis_was_emptied(workers, store):
    worker = workers.start(WORKER__HEARTBEAT_INTERVAL=3600)
    assert workers.send("before").get(timeout=60) == "before"
    workers.redis.flush()
    assert workers.send("after").get(timeout=60) == "after"
    assert not worker.is_over


def test_a_worker_that_stops_hands_back_what_it_has_not_begun(workers, store):
    worker = workers.start(WORKER__CONCURRENCY=1, WORKER__PREFETCH=5)
    tasks = [workers.send(f"t{number}", seconds=1.0 if number == 0 else 0.0) for number in range(5)]
    eventually(lambda: workers.held() == len(tasks))
    assert worker.terminate() == 0
    assert (workers.held(), workers.waiting()) == (0, len(tasks) - 1)
    entries = [entry for name in lists_of(QUEUE) for entry in store.lrange(name, 0, -1)]
    assert not any(b'"redelivered":true' in entry for entry in entries), "none of them has run"
    workers.start()
    assert answers(tasks) == [f"t{number}" for number in range(5)]
