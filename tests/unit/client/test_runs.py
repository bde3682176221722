"""Workflows, runs, batches and collections of the SDK: requests, retries, ends of runs."""

import json

import httpx
import pytest

from citadel_client import CallTimedOut, Conflict, InvalidRequest, RunFailed, ServerUnreachable
from citadel_client.bodies import GROUP_BYTES
from tests.unit.client.double import problem
from tests.unit.client.run_double import RunDouble, accepted, answer, event, failed_view, run_view

WORKFLOW = {"steps": [{"step_id": "a", "type": "wait", "parameters": {"duration": "1s"}}], "context": {"x": 1}}
LOST = httpx.ReadError("lost")


def handle(client):
    return client.runs.handle("r-1")


def test_a_repeated_submission_has_the_same_idempotency_key(talk):
    double = RunDouble(LOST, accepted())
    run = talk(double, lambda client: client.workflows.submit(WORKFLOW, context={"y": 2}))
    assert run.run_id == "r-1"
    first, second = double.bodies()
    assert first == second
    assert first["idempotency_key"]
    assert first["context"] == {"x": 1, "y": 2}
    assert WORKFLOW["context"] == {"x": 1}


def test_submissions_have_keys_of_their_own_unless_one_is_given(talk):
    double = RunDouble(accepted(), accepted(), accepted())
    talk(double, lambda client: client.workflows.submit(WORKFLOW))
    talk(double, lambda client: client.workflows.submit(WORKFLOW))
    talk(double, lambda client: client.workflows.submit(WORKFLOW, idempotency_key="mine"))
    keys = [body["idempotency_key"] for body in double.bodies()]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_every_problem_of_a_definition_has_its_pointer(talk):
    errors = [{"pointer": "/steps/0/type", "detail": "no"}, {"pointer": "/steps/1", "detail": "cycle", "code": "cycle"}]
    double = RunDouble(problem(422, "invalid_definition", errors=errors), problem(422, "x", errors=errors))
    with pytest.raises(InvalidRequest) as refused:
        talk(double, lambda client: client.workflows.submit(WORKFLOW))
    assert [error.pointer for error in refused.value.errors] == ["/steps/0/type", "/steps/1"]
    found = talk(double, lambda client: client.workflows.validate(WORKFLOW))
    assert not found.ok
    assert [(found.pointer, found.code) for found in found.problems] == [("/steps/0/type", None), ("/steps/1", "cycle")]


def test_a_valid_definition_may_have_warnings(talk):
    plan = {"order": [["a"]], "graph": "flowchart TD", "steps": [], "warnings": ["perhaps"], "new": 1}
    found = talk(RunDouble(answer(plan)), lambda client: client.workflows.validate(WORKFLOW))
    assert found.ok
    assert found.warnings == ["perhaps"]


def test_waiting_returns_the_run_at_its_end(talk):
    double = RunDouble(answer(run_view("running")), LOST, answer(run_view("running")), answer(run_view()),
                       answer(run_view(output={"n": 1})))  # fmt: skip
    view = talk(double, lambda client: handle(client).wait(60))
    assert view.output == {"n": 1}


def test_a_run_that_failed_is_an_error_unless_check_is_off(talk):
    with pytest.raises(RunFailed, match="step docs: nothing there") as failed:
        talk(RunDouble(answer(failed_view()), answer(failed_view())), lambda client: handle(client).wait())
    assert failed.value.code == "not_found"
    assert failed.value.run.status == "failed"
    view = talk(RunDouble(answer(failed_view()), answer(failed_view())), lambda c: handle(c).wait(check=False))
    assert view.status == "failed"


@pytest.mark.parametrize("status", ["cancelled", "timed_out"])
def test_cancelled_and_timed_out_runs_are_errors(talk, status):
    views = (answer(run_view(status)) for _ in range(2))
    with pytest.raises(RunFailed) as ended:
        talk(RunDouble(*views), lambda client: handle(client).wait())
    assert ended.value.code == status


def test_waiting_ends_at_its_timeout_while_the_run_goes_on(talk):
    with pytest.raises(CallTimedOut, match="r-1 is paused after 0 s; it goes on"):
        talk(RunDouble(answer(run_view("paused"))), lambda client: handle(client).wait(0))


def test_a_signal_is_never_sent_twice(talk):
    with pytest.raises(ServerUnreachable):
        talk(RunDouble(LOST), lambda client: handle(client).signal("go", {"x": 1}))
    double = RunDouble(httpx.ConnectError("not sent"), answer({"run_id": "r-1", "status": "running"}))
    assert talk(double, lambda client: handle(client).signal("a/b", [1])) == "running"
    assert double.requests[1].url.raw_path == b"/v1/runs/r-1/signals/a%2Fb"
    assert double.requests[1].content == b"[1]"


def test_commands_return_the_new_status(talk):
    double = RunDouble(*(answer({"run_id": "r-1", "status": "running"}, 202) for _ in range(4)))
    for command in ("cancel", "pause", "resume", "retry"):
        assert talk(double, lambda client, command=command: getattr(client.runs, command)("r-1")) == "running"
    assert [request.url.path.rpartition("/")[2] for request in double.requests] == [
        "cancel",
        "pause",
        "resume",
        "retry",
    ]


def test_a_command_that_the_status_does_not_allow_is_a_conflict(talk):
    with pytest.raises(Conflict):
        talk(RunDouble(problem(409, "conflict")), lambda client: handle(client).cancel())


def test_lists_of_runs_fetch_all_pages(talk):
    def page(cursor):
        return answer({"runs": [run_view(), run_view()], "next_cursor": cursor})

    double = RunDouble(page("c1"), page("c2"), page(None))
    labels = {"team": "a:b"}
    found = talk(double, lambda client: client.runs.list(status="failed", kind=None, labels=labels))
    assert len(found) == 6
    queries = [dict(request.url.params) for request in double.requests]
    assert queries[0] == {"status": "failed", "limit": "100", "label": "team:a:b"}
    assert [query.get("cursor") for query in queries] == [None, "c1", "c2"]


def test_lists_of_runs_end_at_their_limit(talk):
    double = RunDouble(answer({"runs": [run_view()] * 3, "next_cursor": "c"}))
    assert len(talk(double, lambda client: client.runs.list(limit=3))) == 3
    assert dict(double.requests[0].url.params) == {"limit": "3"}


def test_history_yields_all_events_so_far(talk):
    def page(*seqs):
        return answer([{"seq": seq, "at": "2026-01-01T00:00:00Z", "type": "x"} for seq in seqs])

    double = RunDouble(page(4, 5), page(6), page())
    found = talk(double, lambda client: handle(client).history(after=3))
    assert [found.seq for found in found] == [4, 5, 6]
    assert [request.url.params["after"] for request in double.requests] == ["3", "5", "6"]


def test_a_batch_is_sent_as_lines_of_json(talk):
    double = RunDouble(accepted())
    requests = ["one", {"text": "two", "request_id": 7}]
    talk(double, lambda client: client.batches.submit(iter(requests), model="m", idempotency_key="k"))
    (request,) = double.requests
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.content == b'{"text":"one"}\n{"text":"two","request_id":7}\n'
    assert dict(request.url.params) == {"idempotency_key": "k", "model": "m"}


def test_a_batch_from_a_list_is_sent_again_with_the_same_key(talk):
    double = RunDouble(LOST, accepted())
    talk(double, lambda client: client.batches.submit(["one", "two"]))
    assert double.requests[0].url == double.requests[1].url
    assert double.requests[0].content == double.requests[1].content != b""


def test_a_batch_from_an_iterator_is_not_sent_again(talk):
    with pytest.raises(ServerUnreachable):
        talk(RunDouble(LOST), lambda client: client.batches.submit(iter(["one", "two"])))


def test_a_request_that_is_not_json_is_named(talk):
    with pytest.raises(InvalidRequest, match=r"requests\[1\]"):
        talk(RunDouble(accepted()), lambda client: client.batches.submit(["one", {"text": object()}]))


def test_points_are_stored_in_groups_that_the_server_takes(talk):
    def stored(request):
        count = len(json.loads(request.content)["points"])
        assert count <= 50
        assert len(request.content) < GROUP_BYTES + 1000
        return answer({"upserted": count, "ids": list(range(count))})

    class Counting(RunDouble):
        def handle(self, request):
            self.requests.append(request)
            return stored(request)

    double, counts = Counting(), []
    vectors = ({"id": n, "embedding": [0.123456789012345] * 1536, "payload": {"x": None}} for n in range(120))
    found = talk(double, lambda c: c.collections.store("a b", vectors, group=50, progress=counts.append))
    assert found.upserted == len(found.ids) == 120
    assert counts[-1] == 120
    assert len(double.requests) > 3
    assert double.requests[0].url.raw_path == b"/v1/collections/a%20b/points"
    assert b'"payload":{"x":null}' in double.requests[0].content


def test_a_search_sends_only_given_options(talk):
    double = RunDouble(answer({"hits": [{"id": "a", "score": 0.5, "payload": {"n": 1}}]}))
    (hit,) = talk(double, lambda client: client.collections.search("docs", text="x", limit=1, filter=None))
    assert (hit.id, hit.score, hit.payload) == ("a", 0.5, {"n": 1})
    assert double.bodies() == [{"text": "x", "limit": 1}]


def test_events_of_unknown_types_are_yielded(talk):
    double = RunDouble(httpx.Response(200, content=event(1, "run_dreamt") + "event: end\ndata: {}\n\n"))
    assert [found.type for found in talk(double, lambda client: handle(client).events())] == ["run_dreamt"]
