"""Dead letters, history and `citadel top`."""

import json

import httpx
import pytest

from citadel_client import Conflict, InvalidRequest, ServerUnreachable
from citadel_client.cli.server_status import Rates
from citadel_contracts.api import WorkerInfo
from tests.unit.client.double import problem
from tests.unit.client.run_double import RunDouble, answer, run_view

AT = "2026-01-01T00:00:00+00:00"


def dead_letter(entry_id="a", **more):
    head = {"id": entry_id, "queue": "embeddings", "task": "generate_embedding", "code": "internal", "error": "[b]no"}
    return {**head, "at": AT, "priority": 3, "deliveries": 1, "attempts": 1, "requeueable": True, **more}


def page(*ids, cursor=None):
    return answer({"letters": list(map(dead_letter, ids)), "next_cursor": cursor, "total": 9, "counts": []})


def worker(processed, at, worker_id="w1", queue="embeddings"):
    facts = {"host": "h", "pid": 1, "concurrency": 8, "running": 3, "failed": 0, "started_at": AT}
    return WorkerInfo(
        id=worker_id, queue=queue, processed=processed, last_seen_at=f"2026-01-01T00:00:{at}+00:00", **facts
    )


class Server(RunDouble):
    """Answers by path; what is scripted comes first."""

    of_queues = ()

    def handle(self, request):
        if self.script:
            return super().handle(request)
        self.requests.append(request)
        return self.of(request.url.path, dict(request.url.params))

    def of(self, path, query):
        if path == "/v1/health":
            down = {"status": "down", "required": False, "detail": "gone"}
            return answer({"status": "degraded", "version": "1", "components": {"cache": down}})
        if path == "/v1/queues":
            lanes = {"interactive": 1, "standard": 22, "batch": 333}
            stats = {"name": "embeddings", "lanes": lanes, "ready": 356, "unacked": 4, "workers": 1}
            return answer({"queues": [stats | dict(self.of_queues)]})
        if path == "/v1/workers":
            return answer({"workers": [worker(100, "00").model_dump()]})
        if path == "/v1/runs":
            found = run_view(query["status"], run_id=f"run-{query['status']}")
            return answer({"runs": [found], "next_cursor": None})
        return self.dead_letters()

    def dead_letters(self):
        return page("letter-1")


@pytest.fixture
def double():
    return Server()


def asked(double):
    return [(request.method, request.url.raw_path.decode()) for request in double.requests]


def test_lists_of_dead_letters_fetch_all_pages(talk, double):
    double.script.extend([page("a", "b", cursor="c1"), page(cursor="c2"), page("c", "d")])
    found = talk(double, lambda client: client.dead_letters.list(queue="q", error="a b"))
    assert [entry.id for entry in found] == ["a", "b", "c", "d"]
    assert asked(double)[1] == ("GET", "/v1/dead-letters?queue=q&error=a+b&cursor=c1&limit=100")


def test_a_dead_letter_is_read_requeued_and_dropped(talk, double):
    whole = dead_letter(args=[1], kwargs={"text": "t"}, history=[{"at": AT, "code": "x", "error": "y", "worker": "w"}])
    requeued = {"id": "a/b", "task": "t", "queue": "q", "status": "queued"}
    double.script.extend([answer(whole), answer(requeued, 202), httpx.Response(204)])
    assert talk(double, lambda client: client.dead_letters.get("a/b")).kwargs == {"text": "t"}
    assert talk(double, lambda client: client.dead_letters.requeue("a/b")).queue == "q"
    assert talk(double, lambda client: client.dead_letters.drop("a/b")) is None
    path = "/v1/dead-letters/a%2Fb"
    assert asked(double) == [("GET", path), ("POST", f"{path}/requeue"), ("DELETE", path)]


def test_a_requeue_that_may_have_arrived_is_not_repeated(talk, double):
    double.script.append(httpx.ReadError("gone"))
    with pytest.raises(ServerUnreachable):
        talk(double, lambda client: client.dead_letters.requeue("a"))
    assert len(double.requests) == 1


def test_requeue_all_yields_the_result_of_each_call(talk, double):
    failure = {"id": "b", "code": "conflict", "message": "no"}
    first = {"requeued": ["a"], "failed": [failure], "next_cursor": "c1"}
    double.script.extend([answer(first), answer({"requeued": ["c"], "failed": [], "next_cursor": None})])
    done = talk(double, lambda client: client.dead_letters.requeue_all(code="internal"))
    assert [part.requeued for part in done] == [["a"], ["c"]]
    assert done[0].failed[0].message == "no"
    assert [body.get("cursor") for body in double.bodies()] == [None, "c1"]
    assert all(body["code"] == "internal" and body["all"] is False for body in double.bodies())


def test_drop_all_needs_a_filter_or_everything(talk, double):
    double.script.extend([problem(422), answer({"dropped": 3, "next_cursor": None})])
    with pytest.raises(InvalidRequest):
        talk(double, lambda client: client.dead_letters.drop_all(queue=None))
    assert talk(double, lambda client: client.dead_letters.drop_all(everything=True)) == 3
    assert [path for _, path in asked(double)] == [
        "/v1/dead-letters?limit=200",
        "/v1/dead-letters?all=true&limit=200",
    ]


def test_history_is_read(talk, double):
    double.script.append(answer({"kind": "health", "entries": [{"at": AT}]}))
    assert talk(double, lambda client: client.history("health", limit=5)) == [{"at": AT}]
    assert asked(double) == [("GET", "/v1/history/health?limit=5")]


def test_dead_letters_are_listed_without_markup(citadel, double):
    double.script.extend([page("a"), page("a")])
    code, out, _ = citadel("dead-letters", "list")
    assert (code, "[b]no" in out) == (0, True)
    assert json.loads(citadel("dead-letters", "list", "--json")[1])[0]["id"] == "a"


def test_a_dead_letter_is_shown(citadel, double):
    whole = dead_letter(args=["private"], history=[{"at": AT, "code": "worker_lost", "error": "died", "worker": "w1"}])
    double.script.append(answer(whole))
    code, out, _ = citadel("dead-letters", "show", "a")
    assert code == 0
    assert all(text in out for text in ("private", "worker_lost", "w1"))


@pytest.mark.parametrize("action", ["requeue", "drop"])
@pytest.mark.parametrize("which", [(), ("a", "--all"), ("--all", "--queue", "q")])
def test_requeue_and_drop_need_a_selection(citadel, double, action, which):
    code, _, err = citadel("dead-letters", action, *which, "--yes")
    assert (code, double.requests) == (2, [])
    assert "say which" in err


@pytest.mark.parametrize("action", ["requeue", "drop"])
def test_without_a_terminal_to_confirm_nothing_is_done(citadel, double, action):
    code, _, err = citadel("dead-letters", action, "a")
    assert (code, double.requests) == (2, [])
    assert "--yes" in err


def test_requeue_exits_with_1_if_some_cannot_be_requeued(citadel, double):
    failure = {"id": "b", "code": "conflict", "message": "it could not be decoded"}
    double.script.append(answer({"requeued": ["a"], "failed": [failure]}))
    code, out, err = citadel("dead-letters", "requeue", "a", "b", "--yes")
    assert (code, out) == (1, "1 requeued, 1 not\n")
    assert "it could not be decoded" in err


def test_drop_takes_filters(citadel, double):
    double.script.append(answer({"dropped": 7}))
    code, out, _ = citadel("dead-letters", "drop", "--code", "internal", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"dropped": 7})


def test_a_requeue_that_conflicts_is_a_conflict(talk, double):
    double.script.append(problem(409, "conflict"))
    with pytest.raises(Conflict):
        talk(double, lambda client: client.dead_letters.requeue("a"))


def test_a_component_that_is_not_checked_yet_is_printed(citadel, double):
    unchecked = {"status": "unknown", "required": False, "detail": "not checked yet"}
    double.script.append(answer({"status": "ok", "version": "1", "components": {"qdrant": unchecked}}))
    code, out, _ = citadel("health")
    assert code == 0
    assert "unknown" in out
    assert "not checked yet" in out


def test_queues_show_messages_that_no_worker_reads_and_what_to_do(citadel, double):
    assert "no worker reads" not in citadel("queues")[1]
    found = {"key": "a-embeddings", "database": 2, "task": "t", "messages": 7, "moved": 5, "reason": "key_prefix"}
    double.of_queues = {"misrouted": [found | {"help": "remove the prefix", "at": AT}]}
    code, out, _ = citadel("queues")
    assert code == 0
    for shown in ("no worker reads", "a-embeddings", "database", " 7 ", " 5 ", "remove the", "prefix"):
        assert shown in out
    assert json.loads(citadel("queues", "--json")[1])[0]["misrouted"][0]["reason"] == "key_prefix"


def test_health_history_is_printed(citadel, double):
    services = {"qdrant": {"status": "down"}, "broker": {"status": "up"}}
    entry = {"at": AT, "health_status": {"status": "down", "services": services}}
    double.script.extend([answer({"kind": "health", "entries": [entry]})] * 2)
    code, out, _ = citadel("health", "--history")
    assert (code, "qdrant down" in out) == (0, True)
    assert json.loads(citadel("health", "--history", "--json", "-n", 1)[1]) == [entry]


def test_rates_come_from_successive_heartbeats():
    rates = Rates()
    assert rates.of([worker(100, "00"), worker(5, "00", "w2")]) == {}
    assert rates.of([worker(150, "05"), worker(5, "00", "w2")]) == {"embeddings": 10.0}
    assert rates.of([worker(150, "05"), worker(25, "10", "w2")]) == {"embeddings": 12.0}
    assert rates.of([worker(150, "10"), worker(0, "11", "w3")]) == {"embeddings": 0.0}


def test_top_in_a_pipe_prints_once(citadel, double):
    code, out, _ = citadel("top")
    assert code == 0
    expected = ("degraded", "cache", "333", "3/8", "run-running", "run-failed", "letter-1", "dead letters: 9")
    assert [word for word in expected if word not in out] == []
    assert "\x1b" not in out


def test_top_prints_a_json_document(citadel, double):
    code, out, _ = citadel("top", "--once", "--json")
    found = json.loads(out)
    assert (code, found["reachable"], found["health"]["status"]) == (0, True, "degraded")
    assert found["letters"]["total"] == 9
    assert [run["status"] for run in found["unfinished"]] == ["queued", "running", "paused"]


def test_top_without_the_scope_for_dead_letters_shows_the_rest(citadel, double, monkeypatch):
    monkeypatch.setattr(double, "dead_letters", lambda: problem(403, "forbidden"))
    code, out, _ = citadel("top")
    assert code == 0
    assert "dead letters: it is no good" in out
    assert "run-running" in out


def test_top_without_a_server_is_exit_code_3(citadel, double):
    double.script.append(httpx.ConnectError("refused"))
    code, out, _ = citadel("top", "--once")
    assert code == 3
    assert "not reachable" in out
