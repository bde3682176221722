"""Dead letters over HTTP: listing, showing, requeueing, dropping."""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from citadel_common.delivery.accepted_tasks import MESSAGES, AcceptedTasks, TaskMessage
from citadel_common.delivery.dead_letters import DeadLetter, DeadLetters
from citadel_common.delivery.redelivery import PREFIX
from citadel_common.delivery.requeue import Requeue
from citadel_common.errors import StoreUnavailable
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from tests.integration.api.conftest import StartApi
from tests.integration.api.servers import RedisServer
from tests.support.child import free_port

PATH = "/v1/dead-letters"
TASK = "generate_embedding"
BATCH_LANE = "embeddings\x06\x166"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HISTORY = [{"at": "2026-01-01T00:00:00+00:00", "code": "worker_lost", "error": "it died", "worker": "w1"}]


@pytest.fixture
def dead_letters(api_redis: RedisServer) -> DeadLetters:
    """The store, emptied."""
    api_redis.flush()
    return DeadLetters(api_redis.store, ttl=3600)


def dead_letter(dead_letter_id: str = "a", **fields: Any) -> DeadLetter:
    plain = {"queue": "embeddings", "task": TASK, "args": [["text"]], "code": "deliveries_exhausted", "error": "died"}
    return DeadLetter(id=dead_letter_id, **(plain | fields))


def undecodable(dead_letter_id: str = "raw") -> DeadLetter:
    body = b"\xff{nonsense"
    return DeadLetter(
        id=dead_letter_id,
        queue="embeddings",
        code="undecodable_message",
        error="not JSON",
        raw=body.decode("utf-8", "backslashreplace"),
        raw_base64=base64.b64encode(body).decode(),
        raw_bytes=len(body),
    )


def messages(redis: RedisServer, lane: str = BATCH_LANE) -> list[Any]:
    """Return the headers and arguments of the task messages in a list of the queue."""
    found = [json.loads(entry) for entry in redis.store.lrange(lane, 0, -1)]
    return [(entry["headers"], json.loads(base64.b64decode(entry["body"]))) for entry in found]


def listed(http: httpx.Client, **query: Any) -> list[str]:
    """Return the ids on all pages."""
    found: list[str] = []
    while True:
        page = http.get(PATH, params=query).raise_for_status().json()
        found += [entry["id"] for entry in page["letters"]]
        if not (cursor := page["next_cursor"]):
            return found
        query["cursor"] = cursor


def test_a_thousand_dead_letters_are_listed_in_pages(http: httpx.Client, dead_letters: DeadLetters) -> None:
    began = time.time() - 2000
    for n in range(1000):
        # three at a time have the same time
        queue, code = ("embeddings", "internal") if n % 4 else ("orchestration", "llm_unavailable")
        dead_letters.add(dead_letter(f"{n:04}", queue=queue, code=code, error=f"Went wrong at {n}", at=began + n // 3))
    newest_first = sorted((f"{n:04}" for n in range(1000)), reverse=True)
    assert listed(http, limit=70) == newest_first
    assert listed(http, queue="orchestration", limit=500) == [n for n in newest_first if not int(n) % 4]
    assert listed(http, error="WENT WRONG AT 77", limit=1) == [*(f"077{n}" for n in range(9, -1, -1)), "0077"]
    assert listed(http, task="none") == []
    since, until = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began + 1 + shift)) for shift in (100, 110))
    window = listed(http, since=since, until=until, limit=7)
    assert len(window) == 30
    assert window == sorted(window, reverse=True)
    page = http.get(PATH, params={"limit": 1}).json()
    assert page["total"] == 1000
    assert page["counts"] == [
        {"queue": "embeddings", "code": "internal", "count": 750},
        {"queue": "orchestration", "code": "llm_unavailable", "count": 250},
    ]
    assert "args" not in page["letters"][0]


def test_dead_letters_added_and_dropped_between_pages_leave_no_gap(
    http: httpx.Client, dead_letters: DeadLetters
) -> None:
    for n in range(10):
        dead_letters.add(dead_letter(str(n), at=time.time() - 100 + n))
    page = http.get(PATH, params={"limit": 5}).json()
    dead_letters.drop(["9", "8", "5"])  # one of them is where the page ended
    dead_letters.add(dead_letter("new"))
    assert listed(http, cursor=page["next_cursor"]) == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"since": "soon"}, "since"),
        ({"cursor": "zzz"}, "cursor"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_filter_is_refused_by_name(http: httpx.Client, query: dict[str, str], named: str) -> None:
    answer = http.get(PATH, params=query)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_a_dead_letter_is_shown_complete(http: httpx.Client, dead_letters: DeadLetters) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"citadel_accepted": 1, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    dead_letters.add(dead_letter(kwargs={"model": "m"}, priority=6, headers=headers, history=HISTORY, deliveries=6))
    shown = http.get(f"{PATH}/a").json()
    assert (shown["task"], shown["args"], shown["kwargs"]) == (TASK, [["text"]], {"model": "m"})
    assert (shown["history"], shown["attempts"], shown["deliveries"]) == (HISTORY, 1, 6)
    assert (shown["trace_id"], shown["accepted"], shown["requeueable"]) == (trace, True, True)
    assert http.get(f"{PATH}/b").status_code == 404


def test_values_that_strict_json_lacks_are_kept(http: httpx.Client, dead_letters: DeadLetters) -> None:
    dead_letters.add(dead_letter("odd", task="\ud800", args=[2**70], error="\udfff broke"))
    [in_list] = http.get(PATH, params={"error": "broke"}).json()["letters"]
    assert in_list["task"] == "?"
    assert http.get(f"{PATH}/odd").json()["error"] == "? broke"
    assert dead_letters.drop(["odd"]) == 1
    assert dead_letters.counts() == {}


def test_a_dead_letter_that_celery_cannot_publish_is_refused_and_kept(
    http: httpx.Client, dead_letters: DeadLetters
) -> None:
    dead_letters.add(dead_letter(options={"queue": "elsewhere"}))
    assert http.post(f"{PATH}/a/requeue").json()["code"] == "conflict"
    assert listed(http) == ["a"]


def test_a_requeued_task_keeps_id_arguments_and_lane(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer
) -> None:
    store = api_redis.store
    dead_letters.add(dead_letter(kwargs={"model": "m"}, priority=6, headers={"traceparent": TRACE}, history=HISTORY))
    store.set("celery-task-meta-a", json.dumps({"status": "FAILURE", "result": {}, "task_id": "a"}))
    store.set(PREFIX + "a", 6)
    answer = http.post(f"{PATH}/a/requeue")
    assert (answer.status_code, answer.json()) == (
        202,
        {"id": "a", "task": TASK, "queue": "embeddings", "status": "queued"},
    )
    [(headers, body)] = messages(api_redis)
    assert (headers["id"], headers["task"], headers["retries"]) == ("a", TASK, 0)
    assert (headers["traceparent"].split("-")[1], headers["citadel_history"]) == (TRACE.split("-")[1], HISTORY)
    assert "citadel_deadline" not in headers
    assert body[:2] == [[["text"]], {"model": "m"}]
    assert not store.exists("celery-task-meta-a", PREFIX + "a")
    assert listed(http) == []
    assert http.post(f"{PATH}/a/requeue").status_code == 404


def test_callbacks_of_a_requeued_task_are_kept(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer
) -> None:
    """The task is in the middle of a Celery chain."""
    then = {"task": TASK, "args": [["next"]], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": True}
    options = {"link": [then], "chain": [then], "root_id": "r", "parent_id": "p", "group_id": "g"}
    dead_letters.add(dead_letter(priority=6, options=options))
    assert http.post(f"{PATH}/a/requeue").status_code == 202
    [(headers, (_, _, embedded))] = messages(api_redis)
    assert (headers["root_id"], headers["parent_id"], headers["group"]) == ("r", "p", "g")
    assert [embedded[name][0]["args"] for name in ("callbacks", "chain")] == [[["next"]], [["next"]]]


def test_concurrent_requeues_publish_a_dead_letter_once(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer
) -> None:
    for n in range(20):
        dead_letters.add(dead_letter(str(n), priority=6))
    with ThreadPoolExecutor(8) as operators:
        asked = [f"{PATH}/{n}/requeue" for n in range(20) for _ in range(4)]
        codes = list(operators.map(lambda path: http.post(path).status_code, asked))
    assert codes.count(202) == 20
    assert set(codes) <= {202, 404, 409}
    assert sorted(int(headers["id"]) for headers, _ in messages(api_redis)) == list(range(20))


def test_an_accepted_task_is_accepted_again(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer, models: None
) -> None:
    accepted = AcceptedTasks(api_redis.store)
    dead_letters.add(dead_letter(args=[], kwargs={"text": "t"}, priority=3, headers={"citadel_accepted": 1}))
    accepted.add(TaskMessage(task_id="a", name=TASK, kwargs={"text": "t"}, priority=3))
    assert http.post(f"{PATH}/a/requeue").status_code == 409  # its end is not recorded yet
    accepted.finish("a")
    assert http.post(f"{PATH}/a/requeue").status_code == 202
    assert json.loads(api_redis.store.hget(MESSAGES, "a"))["kwargs"] == {"text": "t"}
    assert http.get("/v1/tasks/a").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (undecodable("a"), "could not be decoded"),
        (dead_letter(kwargs={"dimension": 5}), "no longer valid: dimension"),
        (dead_letter(args=[]), "no longer valid: text"),
        (dead_letter(task="renamed_since"), "no task 'renamed_since'"),
    ],
)
def test_a_dead_letter_that_cannot_be_requeued_is_a_conflict(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer, refused: DeadLetter, reason: str
) -> None:
    dead_letters.add(refused)
    answer = http.post(f"{PATH}/a/requeue")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert reason in answer.json()["detail"]
    assert not api_redis.store.keys("embeddings*")
    assert http.delete(f"{PATH}/a").status_code == 204
    assert http.delete(f"{PATH}/a").status_code == 404


def test_many_are_requeued_and_each_failure_is_named(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer
) -> None:
    for n in range(10):
        dead_letters.add(dead_letter(str(n), priority=6, code="internal", at=time.time() - 100 + n))
    dead_letters.add(undecodable())
    first = http.post(f"{PATH}/requeue", json={"queue": "embeddings", "limit": 4}).json()
    assert first["requeued"] == ["9", "8", "7"]
    assert [(failure["id"], failure["code"]) for failure in first["failed"]] == [("raw", "conflict")]
    rest = http.post(f"{PATH}/requeue", json={"queue": "embeddings", "cursor": first["next_cursor"]}).json()
    assert rest == {"requeued": [str(n) for n in range(6, -1, -1)], "failed": [], "next_cursor": None}
    assert len(messages(api_redis)) == 10
    by_id = http.post(f"{PATH}/requeue", json={"ids": ["raw", "gone"]}).json()
    assert [failure["code"] for failure in by_id["failed"]] == ["conflict", "not_found"]


def test_dropping_many_needs_a_selection(http: httpx.Client, dead_letters: DeadLetters) -> None:
    for n in range(10):
        dead_letters.add(dead_letter(str(n), code="internal" if n % 2 else "bad_vector"))
    assert http.delete(PATH).status_code == http.post(f"{PATH}/requeue", json={}).status_code == 422
    assert http.delete(PATH, params={"all": "perhaps"}).status_code == 422
    assert dead_letters.count() == 10
    assert http.delete(PATH, params={"code": "internal"}).json() == {"dropped": 5, "next_cursor": None}
    assert dead_letters.counts() == {("embeddings", "bad_vector"): 5}
    assert http.delete(PATH, params={"all": "true"}).json()["dropped"] == 5
    assert http.get(PATH).json() == {"letters": [], "next_cursor": None, "total": 0, "counts": []}


def test_expired_dead_letters_are_removed_in_bounded_batches(dead_letters: DeadLetters, api_redis: RedisServer) -> None:
    lasting = DeadLetters(api_redis.store, ttl=10_000)
    for n in range(20):
        lasting.add(dead_letter(str(n), at=time.time() - 4000 + n))
    lasting.add(dead_letter("young"))
    assert [dead_letters.expire(15), dead_letters.expire(15), dead_letters.expire(15)] == [15, 5, 0]
    assert [found.id for found in dead_letters.newest()] == ["young"]
    assert dead_letters.counts() == {("embeddings", "deliveries_exhausted"): 1}


def test_a_dead_letter_that_cannot_be_published_is_kept(dead_letters: DeadLetters, api_redis: RedisServer) -> None:
    """The broker is down; results are on another server."""
    app = create_app(CommonSettings(broker_url=f"redis://127.0.0.1:{free_port()}/0"))
    app.conf.result_backend = "disabled://"
    requeue = Requeue(app, dead_letters, api_redis.store)
    dead_letters.add(dead_letter())
    for _ in range(2):  # the first has let go of its claim
        with pytest.raises(StoreUnavailable, match="still there"):
            requeue.requeue("a")
    assert dead_letters.get("a") is not None
    app.close()


def test_a_requeued_task_that_fails_at_once_is_a_dead_letter_again(dead_letters: DeadLetters) -> None:
    """The new dead letter may come before the old one is settled."""
    old = dead_letter(at=time.time() - 10)
    dead_letters.add(old)
    dead_letters.add(dead_letter(error="again"))
    dead_letters.settle(old)
    kept = dead_letters.get("a")
    assert kept is not None
    assert kept.error == "again"


@pytest.fixture(scope="module")
def guarded(start_api: StartApi) -> Iterator[httpx.Client]:
    """An API with a key per scope; the key is the scope's name."""
    scopes = ("read", "submit", "admin")
    keys = [{"name": s, "hash": hashlib.sha256(s.encode()).hexdigest(), "scopes": [s]} for s in scopes]
    with httpx.Client(base_url=start_api(keys=json.dumps(keys)).url, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("GET", f"{PATH}/a"),
        ("POST", f"{PATH}/a/requeue"),
        ("POST", f"{PATH}/requeue"),
        ("DELETE", f"{PATH}/a"),
        ("DELETE", PATH),
    ],
)
def test_dead_letters_need_the_scope_admin(
    guarded: httpx.Client, dead_letters: DeadLetters, method: str, path: str
) -> None:
    """Arguments may be private: the scope `submit` is not enough to see them."""
    for scope in ("read", "submit"):
        answer = guarded.request(method, path, headers={"authorization": f"Bearer {scope}"}, json={"all": True})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    answer = guarded.request(method, path, headers={"authorization": "Bearer admin"}, json={"all": True})
    assert answer.status_code not in (401, 403)


def test_dead_letters_are_503_while_the_store_is_down(
    http: httpx.Client, dead_letters: DeadLetters, api_redis: RedisServer
) -> None:
    api_redis.kill()
    try:
        for method, path in (("GET", PATH), ("POST", f"{PATH}/a/requeue"), ("DELETE", f"{PATH}/a")):
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert "retry-after" in answer.headers
    finally:
        api_redis.restart()


def test_the_oldest_dead_letters_go_when_there_are_too_many(api_redis: RedisServer, dead_letters: DeadLetters) -> None:
    few = DeadLetters(api_redis.store, ttl=3600, most=3)
    for number in range(6):
        at = time.time() + number
        few.add(dead_letter(f"letter-{number}", at=at))
    assert [found.id for found in few.newest()] == ["letter-5", "letter-4", "letter-3"]
    assert dead_letters.counts() == {("embeddings", "deliveries_exhausted"): 3}
