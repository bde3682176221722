"""What follows a task is published once, whoever delivers its message again and whatever has died."""

import uuid

import pytest

from tests.support.canvas import SIGNAL
from tests.support.polling import eventually

TASKS = {"generate_embedding": "a text", "query_llm_service": "[[say a]]"}


def wait_until_over(client, name):
    """Wait until all messages of a queue that came before are done with."""
    client.task(name, TASKS[name]).apply_async().get(timeout=60)
    eventually(lambda: not client.store.keys("citadel:unacked:*"))


@pytest.mark.parametrize("name", TASKS)
def test_a_message_that_is_delivered_again_has_its_callback_once(client, name):
    noted = client.note()
    entry = client.entry_of(client.task(name, TASKS[name]).set(link=noted))
    client.deliver(entry)
    client.seen(noted)
    task_id = client.deliver(entry, again=True)
    wait_until_over(client, name)
    children = client.app.AsyncResult(task_id).children
    assert [child.id for child in children] == [note["id"] for note in client.seen(noted)]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_is_sent_again_by_its_id_is_followed_again(client, name):
    noted, task_id = client.note(), str(uuid.uuid4())
    for sent in (1, 2):
        client.task(name, TASKS[name]).apply_async(link=noted, task_id=task_id)
        assert len(client.seen(noted, times=sent)) == sent


@pytest.mark.parametrize("name", TASKS)
def test_an_errback_is_called_once(client, name):
    errback = client.note()
    entry = client.entry_of(client.task(name, 7), errback)
    client.deliver(entry)
    client.seen(errback)
    client.deliver(entry, again=True)
    wait_until_over(client, name)
    assert client.noted(errback) == 1


@pytest.mark.parametrize("name", TASKS)
def test_a_part_that_comes_again_is_counted_once(client, name):
    noted = client.note()
    options = {"group_id": str(uuid.uuid4()), "chord": noted, "task_id": str(uuid.uuid4()), "group_index": 0}
    client.store.set(f"celery-taskset-meta-{options['group_id']}.s", 2, ex=600)
    entry = client.entry_of(client.task(name, TASKS[name]).set(**options))
    for again in (False, True):
        client.deliver(entry, again=again)
    wait_until_over(client, name)
    assert client.noted(noted) == 0
    client.task("generate_embedding", "b").apply_async(**options | {"group_index": 1, "task_id": str(uuid.uuid4())})
    assert len(client.seen(noted)[0]["args"][0]) == 2


@pytest.mark.parametrize("name", TASKS)
def test_a_chord_goes_on_after_a_worker_died_while_it_published_the_body(client, name):
    """The worker has counted the last part and claimed the body; its message comes back before the claim lapses."""
    noted, group = client.note(), str(uuid.uuid4())
    client.store.set(f"celery-taskset-meta-{group}.s", 1, ex=600)
    client.store.set(f"celery-taskset-meta-{group}.c", "of a dead worker", px=1500)
    client.task(name, TASKS[name]).apply_async(group_id=group, chord=noted, group_index=0)
    assert len(client.seen(noted)[0]["args"][0]) == 1


def test_a_chord_is_kept_for_longer_than_results(client):
    noted, group = client.note(), str(uuid.uuid4())
    sizes = f"celery-taskset-meta-{group}.s"
    client.store.set(sizes, 2, ex=600)
    client.task("query_llm_service", "[[say a]]").apply_async(group_id=group, chord=noted, group_index=0)
    eventually(lambda: client.store.exists(f"celery-taskset-meta-{group}.j"))
    assert client.store.ttl(sizes) > 6 * 24 * 3600


def test_a_run_that_an_older_worker_has_answered_is_followed(client):
    noted = client.note()
    client.task("execute_workflow", SIGNAL).apply_async(link=noted)
    db = client.platform.db
    [(run_id,)] = eventually(
        lambda: db.rows("SELECT run_id FROM runs JOIN steps USING (run_id) WHERE steps.status = 'waiting'")
    )
    db.commands.signal(run_id, "go", {})
    db.rows("UPDATE runs SET reply_to = NULL WHERE run_id = %s RETURNING run_id", run_id)
    assert client.seen(noted)[0]["args"][0]["success"]


def test_two_tasks_of_one_run_are_both_followed(client):
    noted = [client.note(), client.note()]
    definition = SIGNAL | {"idempotency_key": uuid.uuid4().hex}
    for callback in noted:
        client.task("execute_workflow", definition).apply_async(link=callback)
    db = client.platform.db
    query = "SELECT run_id FROM runs WHERE idempotency_key = %s AND cardinality(canvases) = 2"
    [(run_id,)] = eventually(lambda: db.rows(query, definition["idempotency_key"]))
    eventually(lambda: db.rows("SELECT 1 FROM steps WHERE run_id = %s AND status = 'waiting'", run_id))
    db.commands.signal(run_id, "go", {})
    assert [client.seen(callback)[0]["args"][0]["success"] for callback in noted] == [True, True]


def test_a_run_that_is_retried_after_its_end_is_followed_once(client):
    noted = client.note()
    task = client.task("query_llm_service", "no [[bad400]]").apply_async(link=noted)
    assert client.seen(noted)[0]["args"][0]["success"] is False
    db = client.platform.db
    eventually(lambda: db.rows("SELECT 1 FROM runs WHERE run_id = %s AND reply_to IS NULL", task.id))
    db.commands.retry(uuid.UUID(task.id), deadline=None)
    eventually(lambda: db.rows("SELECT 1 FROM runs WHERE run_id = %s AND finished_at IS NOT NULL", task.id))
    wait_until_over(client, "query_llm_service")
    assert client.noted(noted) == 1


def test_another_definition_under_the_id_of_a_run_is_refused(client):
    noted = client.note()
    task = client.task("query_llm_service", "[[say a]]").apply_async()
    assert task.get(timeout=60)["text"] == "a"
    client.task("execute_workflow", SIGNAL).apply_async(task_id=task.id, link=noted)
    assert client.seen(noted)[0]["args"][0]["failure"]["code"] == "conflict"
