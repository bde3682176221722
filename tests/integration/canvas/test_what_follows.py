"""Callbacks, chains, groups and chords of a plain Celery client go on with results, once, when those are there."""

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult, GroupResult

from tests.support.canvas import SIGNAL
from tests.support.polling import eventually

FOUR = {
    "execute_workflow": [{"workflow_id": "w", "context": {}, "steps": [
        {"step_id": "a", "type": "llm_query", "parameters": {"query": "[[say four]]"}}]}],
    "query_llm_service": ["say it [[say four]]"],
    "generate_embedding": ["a text"],
    "batch_generate_embeddings": [[{"text": "a text", "request_id": 1}]],
}  # fmt: skip
REFUSED = {
    "execute_workflow": [{"steps": []}],
    "query_llm_service": ["hi", {}, "http://elsewhere.example"],
    "vector_similarity_search": [[0.1] * 768, "nowhere"],
}
"""Runs that fail, or never begin: their tasks answer with `success: false`, and have succeeded all the same."""


def waiting_run(client):
    """Return the id of the newest run once it waits for its signal."""
    query = (
        "SELECT run_id FROM runs JOIN steps USING (run_id) WHERE steps.status = 'waiting' AND runs.finished_at IS NULL"
    )
    [(run_id,)] = eventually(lambda: client.platform.db.rows(query))
    return run_id


class TestLink:
    @pytest.mark.parametrize("name", FOUR)
    def test_a_callback_gets_the_result(self, client, name):
        noted = client.note()
        task = client.task(name, *FOUR[name]).apply_async(link=noted)
        result = task.get(timeout=60)
        [entry] = client.seen(noted)
        assert result["success"] is True
        assert entry["args"] == [result]
        assert (entry["parent_id"], entry["root_id"], entry["queue"]) == (task.id, task.id, "celery")

    @pytest.mark.parametrize("name", REFUSED)
    def test_an_answer_without_success_is_a_result_too(self, client, name):
        noted, errback = client.note(), client.note()
        task = client.task(name, *REFUSED[name]).apply_async(link=noted, link_error=errback)
        [entry] = client.seen(noted)
        assert entry["args"][0]["success"] is False
        assert (task.state, client.noted(errback)) == ("SUCCESS", 0)

    def test_a_callback_waits_for_the_end_of_the_run(self, client):
        noted = client.note()
        task = client.task("execute_workflow", SIGNAL).apply_async(link=noted)
        run_id = waiting_run(client)
        assert (client.noted(noted), task.state) == (0, "PENDING")
        client.platform.db.commands.signal(run_id, "go", {"at": "last"})
        [entry] = client.seen(noted)
        assert entry["args"][0]["workflow_results"][0]["result"] == {"at": "last"}

    def test_a_cancelled_run_is_followed_too(self, client):
        noted = client.note()
        client.task("execute_workflow", SIGNAL).apply_async(link=noted)
        client.platform.db.commands.cancel(waiting_run(client))
        [entry] = client.seen(noted)
        assert (entry["args"][0]["status"], entry["args"][0]["success"]) == ("cancelled", False)

    def test_several_callbacks_are_a_group_of_children(self, client):
        noted = [client.note() for _ in range(2)]
        task = client.ask("hi").apply_async(link=noted)
        task.get(timeout=60)
        [children] = task.children
        assert isinstance(children, GroupResult)
        assert {entry["id"] for tag in noted for entry in client.seen(tag)} == {child.id for child in children}

    def test_the_callback_is_the_child_of_its_task(self, client):
        noted = client.note()
        task = client.ask("hi").apply_async(link=noted)
        task.get(timeout=60)
        [child] = task.children
        assert isinstance(child, AsyncResult)
        assert child.get(timeout=60)["text"] == "hi"
        assert [result.id for result, _ in task.collect()] == [task.id, child.id]

    def test_the_callback_of_a_callback(self, client):
        noted = client.note()
        client.ask("hi").apply_async(link=client.task("client.text_of").set(link=noted))
        assert client.seen(noted)[0]["args"] == ["hi"]


class TestChain:
    def test_tasks_of_both_sides_take_turns(self, client):
        noted = client.note()
        steps = [client.ask("a text"), client.task("client.text_of"), client.task("generate_embedding"), noted]
        result = chain(steps, app=client.app).apply_async()
        assert result.get(timeout=60)["total_texts"] == 1
        [entry] = client.seen(noted)
        assert entry["parent_id"] == result.parent.id
        assert entry["root_id"] == result.parent.parent.parent.id

    def test_a_run_follows_a_run(self, client):
        search = client.task("vector_similarity_search", collection="chained", text="fact 1", model="bge-m3", limit=1)
        points = [{"id": n, "text": f"fact {n}"} for n in range(3)]
        stored = client.task("upsert_vectors", collection="chained", points=points, model="bge-m3")
        found = chain(stored, search.set(immutable=True), app=client.app).apply_async().get(timeout=60)
        assert [hit["id"] for hit in found["hits"]] == [1]

    def test_a_task_of_citadel_needs_no_queue_after_the_first(self, client):
        unrouted = client.app.signature("generate_embedding", args=["b"], immutable=True)
        assert chain(client.ask("a"), unrouted, app=client.app).apply_async().get(timeout=60)["success"]

    def test_a_group_in_the_middle_becomes_a_chord(self, client):
        noted = client.note()
        middle = group([client.task("client.text_of"), client.task("client.text_of")], app=client.app)
        chain(client.ask("hi"), middle, noted, app=client.app).apply_async()
        assert client.seen(noted)[0]["args"] == [["hi", "hi"]]

    def test_a_task_replaces_itself_by_a_task_of_citadel(self, client):
        noted = client.note()
        task = client.task("client.replace", "query_llm_service", ["[[say new]]"], "orchestration")
        result = chain(task, noted, app=client.app).apply_async()
        assert result.parent.get(timeout=60)["text"] == "new"
        assert client.seen(noted)[0]["args"][0]["text"] == "new"


class TestGroupsAndChords:
    @pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery, in this process
    def test_a_group_has_all_results(self, client):
        tasks = [client.ask("a"), client.task("generate_embedding", "b"), client.task("client.double", 3)]
        result = group(tasks, app=client.app).apply_async()
        result.save()
        first, second, third = GroupResult.restore(result.id, app=client.app).get(timeout=60)
        assert (first["text"], second["total_texts"], third) == ("a", 1, 6)

    def test_the_body_of_a_chord_gets_the_results_in_order(self, client):
        noted = client.note()
        header = [
            client.ask("a"),
            client.task("generate_embedding", "b"),
            client.task("client.double", 3),
            client.ask("c"),
        ]
        chord(header, app=client.app)(noted)
        [entry] = client.seen(noted)
        [(first, second, third, fourth)] = entry["args"]
        assert (first["text"], second["total_texts"], third, fourth["text"]) == ("a", 1, 6, "c")

    def test_a_chord_of_chains(self, client):
        noted = client.note()
        header = [chain(client.ask(text), client.task("client.text_of"), app=client.app) for text in "abc"]
        chord(header, app=client.app)(noted)
        assert client.seen(noted)[0]["args"] == [["a", "b", "c"]]

    def test_chains_that_end_in_runs(self, client):
        noted = client.note()
        header = [
            chain(client.task("client.double", n), client.ask("x").set(immutable=True), app=client.app) for n in (1, 2)
        ]
        chord(header, app=client.app)(noted)
        assert [part["text"] for part in client.seen(noted)[0]["args"][0]] == ["x", "x"]

    def test_a_chord_within_a_chain_and_a_task_of_citadel_as_its_body(self, client):
        noted = client.note()
        header = group([client.task("client.double", n) for n in (1, 2)], app=client.app)
        body = client.ask("the body").set(immutable=True)
        chain(
            client.task("client.double", 0), chord(header.set_immutable(True) or header, body), noted, app=client.app
        ).apply_async()
        assert client.seen(noted)[0]["args"][0]["text"] == "the body"

    def test_a_group_in_a_header_is_part_of_it(self, client):
        noted = client.note()
        inner = group([client.ask("b"), client.ask("c")], app=client.app)
        chord([client.ask("a"), inner, client.task("client.double", 2)], app=client.app)(noted)
        [(first, *inner, last)] = client.seen(noted)[0]["args"]
        assert (first["text"], last) == ("a", 4)
        assert {part["text"] for part in inner} == {"b", "c"}  # Celery's client turns them around

    def test_a_group_at_the_end_of_a_chain_in_a_header_keeps_its_structure(self, client):
        noted = client.note()
        inner = group([client.ask(text).set(immutable=True) for text in "bc"], app=client.app)
        header = [client.ask("a"), chain(client.task("client.double", 1), inner, app=client.app), client.ask("d")]
        chord(header, app=client.app)(noted)
        [(first, (second, third), fourth)] = client.seen(noted)[0]["args"]
        assert [part["text"] for part in (first, second, third, fourth)] == ["a", "b", "c", "d"]

    def test_a_chord_as_a_callback(self, client):
        noted = client.note()
        header = [client.task("client.text_of"), client.ask("b").set(immutable=True)]
        client.ask("a").apply_async(link=chord(header, noted, app=client.app))
        [(first, second)] = client.seen(noted)[0]["args"]
        assert (first, second["text"]) == ("a", "b")
