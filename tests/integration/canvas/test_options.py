"""Options of tasks and callbacks behave as Celery says: queues, priorities, expiry, ignored results, stamps, maps."""

from celery import chain, chord, group
from celery.canvas import StampingVisitor, chunks, xmap, xstarmap

from tests.support.canvas import SIGNAL
from tests.support.polling import eventually


class Stamps(StampingVisitor):
    """Stamps each task with who asked."""

    def on_signature(self, sig, **headers):  # noqa: ARG002 - Celery's signature
        return {"asked_by": "somebody", "stamped_headers": ["asked_by"]}


class TestQueues:
    def test_a_callback_goes_to_the_queue_that_it_names(self, client):
        noted = client.note()
        client.ask("a").apply_async(link=noted.set(queue="client-own"))
        assert client.seen(noted)[0]["queue"] == "client-own"

    def test_a_callback_goes_where_its_exchange_and_routing_key_lead(self, client):
        noted = client.note()
        client.task("generate_embedding", "a").apply_async(
            link=noted.set(exchange="client-own", routing_key="client-own")
        )
        assert client.seen(noted)[0]["args"][0]["success"]

    def test_a_callback_has_no_priority_but_its_own(self, client):
        plain, urgent = client.note(), client.note()
        client.ask("a").apply_async(link=[plain, urgent.set(priority=6)], priority=3)
        assert (client.seen(plain)[0]["priority"], client.seen(urgent)[0]["priority"]) == (0, 6)


class TestResults:
    def test_an_ignored_result_is_not_stored_and_followed(self, client):
        for task in (client.ask("a"), client.task("generate_embedding", "a")):
            noted = client.note()
            result = task.apply_async(link=noted, ignore_result=True)
            assert client.seen(noted)[0]["args"][0]["success"]
            assert not client.store.exists(f"celery-task-meta-{result.id}")

    def test_ignored_results_are_counted_in_a_chord(self, client):
        noted = client.note()
        chord([client.ask(text).set(ignore_result=True) for text in "ab"], app=client.app)(noted)
        assert [part["text"] for part in client.seen(noted)[0]["args"][0]] == ["a", "b"]

    def test_a_result_names_its_parent_and_its_group(self, client):
        noted = client.note()
        parts = group([client.ask("a").set(immutable=True), client.ask("b").set(immutable=True)], app=client.app)
        result = chain(client.task("client.double", 1), parts, noted, app=client.app).apply_async()
        client.seen(noted)
        metas = [client.app.backend.get_task_meta(part.id) for part in result.parent.results]
        assert {meta["group_id"] for meta in metas} == {result.parent.id}
        assert {meta["parent_id"] for meta in metas} == {result.parent.parent.id}

    def test_a_task_that_is_too_old_is_revoked_and_not_followed(self, client):
        for task in (client.ask("a"), client.task("generate_embedding", "a")):
            noted = client.note()
            result = task.apply_async(link=noted, expires=-1)
            eventually(lambda result=result: result.state == "REVOKED")
            assert client.noted(noted) == 0

    def test_a_time_limit_bounds_a_run(self, client):
        result = client.task("execute_workflow", SIGNAL).apply_async(soft_time_limit=1, time_limit=60).get(timeout=60)
        assert (result["success"], result["status"]) == (False, "timed_out")

    def test_a_time_limit_bounds_a_task(self, client):
        client.platform.doubles.ollama.behaviour("hang")
        result = client.task("generate_embedding", "slow").apply_async(time_limit=1)
        eventually(lambda: result.state == "FAILURE")
        client.platform.doubles.ollama.behaviour("ok")
        assert "DeadlineExceeded" in repr(result.result)

    def test_the_stamps_of_a_canvas_reach_the_callback(self, client):
        noted = client.note()
        whole = chain(
            client.ask("a"), client.task("generate_embedding", "b").set(immutable=True), noted, app=client.app
        )
        whole.stamp(Stamps())
        whole.apply_async()
        assert client.seen(noted)[0]["stamps"] == {"asked_by": "somebody"}


class TestMaps:
    def test_starmap_and_map_call_a_task_for_each_item(self, client):
        for name, queue, says in (
            ("query_llm_service", "orchestration", "text"),
            ("generate_embedding", "embeddings", "total_texts"),
        ):
            noted = client.note()
            task = client.app.signature(name)
            first = xstarmap(task, [["[[say a]]"], ["[[say b]]"]], app=client.app).apply_async(queue=queue, link=noted)
            second = xmap(task, ["[[say a]]", "[[say b]]"], app=client.app).apply_async(queue=queue)
            expected = ["a", "b"] if says == "text" else [1, 1]
            assert [part[says] for part in first.get(timeout=60)] == expected
            assert [part[says] for part in second.get(timeout=60)] == expected
            assert client.seen(noted)[0]["args"] == [first.get()]

    def test_chunks_are_groups_of_starmaps(self, client):
        noted = client.note()
        task = client.app.signature("query_llm_service")
        calls = chunks(task, [[f"[[say {n}]]"] for n in range(5)], 2, app=client.app).group()
        chord([part.set(queue="orchestration") for part in calls.tasks], app=client.app)(noted)
        [parts] = client.seen(noted)[0]["args"]
        assert [[item["text"] for item in part] for part in parts] == [["0", "1"], ["2", "3"], ["4"]]

    def test_a_map_of_nothing(self, client):
        task = xmap(client.app.signature("generate_embedding"), [], app=client.app)
        assert task.apply_async(queue="embeddings").get(timeout=60) == []

    def test_a_map_whose_item_fails_fails(self, client):
        errback = client.note()
        task = xmap(client.app.signature("generate_embedding"), ["a", ""], app=client.app)
        result = task.apply_async(queue="embeddings", link_error=errback)
        eventually(lambda: result.state == "FAILURE")
        assert client.seen(errback)[0]["args"] == [result.id]
