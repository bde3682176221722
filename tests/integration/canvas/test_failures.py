"""Errors of tasks in a canvas: errbacks, the rest of a chain, chords."""

import json
import uuid

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from citadel_common.delivery.dead_letters import DeadLetters
from citadel_common.delivery.redelivery import PREFIX as DELIVERIES_PREFIX
from citadel_common.delivery.requeue import Requeue
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from tests.support.polling import eventually

BAD = {
    "generate_embedding": [""],
    "query_llm_service": [7],
    "execute_workflow": ["no definition"],
    "upsert_vectors": [],
}
"""Arguments that are refused: the task's state is FAILURE."""


def failure_of(result):
    """Wait for a failure and return it; `get` would raise that of a parent."""
    eventually(lambda: result.state == "FAILURE")
    return result.result


@pytest.mark.parametrize("name", BAD)
def test_an_errback_on_the_clients_worker_gets_the_tasks_id(client, name):
    noted, errback = client.note(), client.note()
    task = client.task(name, *BAD[name]).apply_async(link=noted, link_error=errback)
    [entry] = client.seen(errback)
    assert entry["args"] == [task.id]
    assert (entry["parent_id"], entry["queue"], task.state) == (task.id, "celery", "FAILURE")
    assert client.noted(noted) == 0


def test_each_errback_is_called_with_its_own_arguments(client):
    errbacks = [client.note("mine"), client.note("other").set(immutable=True)]
    task = client.task("generate_embedding", "").apply_async(link_error=errbacks)
    assert [client.seen(errback)[0]["args"] for errback in errbacks] == [[task.id, "mine"], ["other"]]


def test_a_failure_fails_the_rest_of_the_chain(client):
    noted, errback = client.note(), client.note()
    steps = chain(
        client.task("client.double", 0), client.task("generate_embedding"), client.ask("x"), noted, app=client.app
    )
    result = steps.apply_async(link_error=errback)
    assert "text" in str(failure_of(result))
    assert {str(failure_of(task)) for task in (result.parent, result.parent.parent)} == {str(failure_of(result))}
    assert client.noted(noted) == 0


def test_a_failed_part_fails_the_chord_and_calls_the_bodys_errback(client):
    noted, errback = client.note(), client.note()
    header = [client.ask("a"), client.task("generate_embedding", ""), client.task("client.double", 1)]
    body = noted.on_error(errback)
    result = chord(header, app=client.app)(body)
    assert isinstance(failure_of(result), ChordError)
    assert client.seen(errback)[0]["args"] == [result.id]
    assert client.noted(noted) == 0


def test_the_clients_own_failure_fails_a_chord_of_runs(client):
    noted = client.note()
    result = chord([client.task("client.fail"), client.ask("a"), client.ask("b")], app=client.app)(noted)
    assert isinstance(failure_of(result), ChordError)
    assert client.noted(noted) == 0


def test_a_group_in_a_chain_fails_its_chord(client):
    noted = client.note()
    middle = group([client.task("generate_embedding"), client.task("client.double")], app=client.app)
    result = chain(client.task("client.double", 1), middle, noted, app=client.app).apply_async()
    assert isinstance(failure_of(result), ChordError)


def test_what_cannot_be_published_fails_the_task(client):
    """A callback whose signature has the right form and names a kind that does not exist."""
    unknown = client.note().clone()
    unknown["subtask_type"] = "nonsense"
    for name, args in (("generate_embedding", ["a"]), ("query_llm_service", ["[[say a]]"])):
        task = client.task(name, *args).apply_async(link=unknown)
        with pytest.raises(Exception, match="cannot be published"):
            task.get(timeout=60)


def test_an_errback_of_the_new_form_is_called_with_the_id(client):
    """Its function is the client's own: no other worker can call it with request, error and traceback."""
    tag = uuid.uuid4().hex
    errback = client.task("client.failed", tag=tag)
    task = client.task("generate_embedding", "").apply_async(link_error=errback)
    assert client.seen(tag)[0]["args"] == [task.id]


def test_a_refused_message_calls_its_errback_and_fails_its_chord(client):
    noted, errback = client.note(), client.note()
    unknown = client.app.signature("no.such.task", queue="embeddings").on_error(errback)
    result = chord([client.ask("a"), unknown], app=client.app)(noted)
    assert isinstance(failure_of(result), ChordError)
    assert client.seen(errback)[0]["args"] == [result.parent.results[1].id]


@pytest.mark.parametrize("name", ["chord_unlock", "group", "chord", "chain", "chunks"])
def test_other_tasks_of_celerys_own_are_refused(client, name):
    task = client.app.send_task(f"celery.{name}", args=[1], queue="embeddings")
    with pytest.raises(Exception, match="a task of Celery's own"):
        task.get(timeout=60)


def test_a_dead_letter_that_is_requeued_goes_on_with_its_chain(client):
    noted, errback = client.note(), client.note()
    entry = client.entry_of(chain(client.ask("late"), client.task("client.text_of"), noted, app=client.app), errback)
    task_id = json.loads(entry)["headers"]["id"]
    client.store.set(DELIVERIES_PREFIX + task_id, 10, ex=600)
    client.deliver(entry, again=True)
    assert client.seen(errback)[0]["args"] == [task_id]
    letters = DeadLetters(client.store, ttl=3600)
    with create_app(CommonSettings(broker_url=client.platform.redis.url)) as app:
        Requeue(app, letters, client.store).requeue(eventually(lambda: letters.get(task_id)).id)
    assert client.seen(noted)[0]["args"] == ["late"]
