"""Batches: accepted as JSON or NDJSON, results in order while they run, through outages."""

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.doubles.ollama.vectors import expected_vector
from tests.integration.api.servers import Api
from tests.integration.api.stack import BATCHES, MODEL, NDJSON, Stack, step_of
from tests.support.planted import TEXT
from tests.support.polling import eventually
from tests.support.web import web

CHUNK = 64
"""Requests in a chunk, by default."""


@pytest.fixture(autouse=True)
def healthy(stack: Stack) -> Iterator[None]:
    """Reset the double's mode after each test."""
    yield
    stack.double.behaviour("ok")


def requests_of(name: str, count: int) -> list[dict[str, Any]]:
    return [{"text": f"{TEXT} {name} {number}", "request_id": f"r{number}", "model": MODEL} for number in range(count)]


def ndjson(requests: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)


def batches_in(stack: Stack) -> int:
    return len(stack.show("/v1/runs?kind=batch&limit=500")["runs"])


def items_of(view: Any) -> Any:
    return step_of(view, "chunks")["items"]


def assert_right(results: list[Any], requests: list[dict[str, Any]]) -> None:
    """Check that line i belongs to request i and has the vector of its text."""
    assert [line["index"] for line in results] == list(range(len(requests)))
    for line, request in zip(results, requests, strict=True):
        assert (line["request_id"], line["errors"]) == (request["request_id"], [])
        [vector] = line["embeddings"]
        np.testing.assert_allclose(vector, expected_vector(MODEL, request["text"]), atol=1e-6)


def test_a_batch_as_json_and_as_ndjson_gives_the_same(stack: Stack) -> None:
    requests = requests_of("same", 150)
    answer = stack.http.post(BATCHES, json={"requests": requests, "labels": {"team": "json"}})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    as_json = answer.headers["location"]
    assert as_json == f"/v1/runs/{answer.json()['run_id']}"
    as_ndjson = stack.submit_batch(requests, label="team:ndjson")
    first, second = stack.results(as_json), stack.results(as_ndjson)
    assert_right(first, requests)
    assert_right(second, requests)
    assert stack.show("/v1/runs?label=team:ndjson")["runs"][0]["run_id"] == as_ndjson.rpartition("/")[2]


def test_lines_are_read_however_the_body_is_split(stack: Stack) -> None:
    requests = requests_of("cut ü", 20)
    body = b"\n\r\n" + ndjson(requests).replace(b"\n", b"\r\n").rstrip()
    pieces = (body[start : start + 7] for start in range(0, len(body), 7))
    answer = stack.http.post(BATCHES, content=pieces, headers=NDJSON)
    assert answer.status_code == 202, answer.text
    assert_right(stack.results(answer.headers["location"]), requests)


def test_a_batch_takes_a_model_for_all_lists_of_texts_and_base64(stack: Stack) -> None:
    path = stack.submit_batch([{"text": ["one", "two"]}, {"text": "three", "model": "all-minilm"}], model=MODEL)
    first, second = stack.results(path, encoding_format="base64")
    vectors = [np.frombuffer(base64.b64decode(vector), dtype="<f4") for vector in first["embeddings"]]
    np.testing.assert_allclose(vectors, [expected_vector(MODEL, text) for text in ("one", "two")], atol=1e-6)
    assert (first["model"], first["dimensions"]) == (MODEL, 768)
    assert (second["model"], second["dimensions"], second["request_id"]) == ("all-minilm", 384, None)
    bad = stack.http.get(f"{path}/results?encoding_format=hex")
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/encoding_format")


def test_a_bad_text_or_model_harms_no_other_request(stack: Stack) -> None:
    requests = requests_of("neighbours", 5)
    requests[1]["text"] = f"{TEXT} [[nan]]"
    requests[2]["model"] = "no-such-model"
    requests[3]["text"] = ["good", f"{TEXT} [[nan]]"]
    path = stack.submit_batch(requests)
    results = stack.results(path)
    assert stack.show(path)["status"] == "succeeded"
    assert [[error["index"] for error in line["errors"]] for line in results] == [[], [0], [0], [1], []]
    assert results[2]["errors"][0]["code"] == "model_not_found"
    assert results[3]["embeddings"][0] is not None
    assert results[3]["embeddings"][1] is None
    assert items_of(stack.show(path)) == {"total": 5, "done": 5, "failed": 3, "waiting": 0}
    ends = [event["data"] for event in stack.history(path) if event["type"] == "step_succeeded" and event["data"]]
    assert ends == [{"requests": 5, "failed": 3}]


@pytest.mark.parametrize(
    ("line", "status", "named"),
    [
        (b'{"txt": "a"}', 422, "requests[70].text"),
        (b'{"text": "a", "txt": "b"}', 422, "requests[70].txt"),
        (b'{"text": 7}', 422, "requests[70].text"),
        (b'{"text": []}', 422, "requests[70].text"),
        (b'{"text": "a", "dimensions": 0}', 422, "requests[70].dimensions"),
        (b"[1]", 422, "requests[70]"),
        (b'{"text": ', 400, "line 71"),
        (b"\xff", 400, "line 71"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_recorded(stack: Stack, line: bytes, status: int, named: str) -> None:
    before = batches_in(stack)
    body = ndjson(requests_of("fine", 70)) + line + b"\n" + ndjson(requests_of("more", 3))
    answer = stack.http.post(BATCHES, content=body, headers=NDJSON)
    assert (answer.status_code, answer.json()["detail"].startswith(named)) == (status, True), answer.text
    assert batches_in(stack) == before


@pytest.mark.parametrize(
    ("query", "field"),
    [("idempotency_key=%00", "idempotency_key"), ("label=a", "label"), ("label=b%20c:d", "labels"), ("model=", None)],
)
def test_fields_of_the_whole_batch_are_checked(stack: Stack, query: str, field: str | None) -> None:
    answer = stack.http.post(f"{BATCHES}?{query}", content=ndjson(requests_of("head", 1)), headers=NDJSON)
    if field is None:
        assert answer.status_code == 202
    else:
        assert (answer.status_code, answer.json()["detail"].startswith(field)) == (422, True), answer.text


@pytest.mark.parametrize("body", [b"", b"\n\n"])
def test_an_empty_batch_is_refused(stack: Stack, body: bytes) -> None:
    answer = stack.http.post(BATCHES, content=body, headers=NDJSON)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/requests")


def test_the_same_idempotency_key_gives_the_same_run(stack: Stack) -> None:
    requests = requests_of("once", 100)
    path = stack.submit_batch(requests, idempotency_key="batch")
    before = batches_in(stack)
    assert stack.submit_batch(requests, idempotency_key="batch") == path
    again = stack.http.post(BATCHES, json={"requests": requests, "idempotency_key": "batch"})
    assert (again.status_code, again.headers["location"]) == (202, path)
    other = stack.http.post(f"{BATCHES}?idempotency_key=batch", content=ndjson(requests[:-1]), headers=NDJSON)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert batches_in(stack) == before


def test_results_stream_while_the_batch_runs(stack: Stack) -> None:
    known = requests_of("known", CHUNK)
    stack.ended(stack.submit_batch(known))
    stack.double.behaviour("slow", delay_ms=1500)
    rest = requests_of("rest", CHUNK)
    path = stack.submit_batch(known + rest)
    with stack.http.stream("GET", f"{path}/results") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.iter_lines()
        early = [json.loads(line) for line in itertools.islice(lines, CHUNK)]
        view = stack.show(path)
        assert (view["status"], items_of(view)) == (
            "running",
            {"total": 2 * CHUNK, "done": CHUNK, "failed": 0, "waiting": 0},
        )
        stack.double.behaviour("ok")
        late = [json.loads(line) for line in lines]
    assert_right(early + late, known + rest)
    view = stack.show(path)
    assert items_of(view) == {"total": 2 * CHUNK, "done": 2 * CHUNK, "failed": 0, "waiting": 0}
    assert view["output"] is None
    assert stack.show(f"{path}/steps/chunks")["output"] is None  # all vectors at once would be too much


def test_a_paused_batch_gives_its_results_so_far(stack: Stack) -> None:
    known, rest = requests_of("so far", CHUNK), requests_of("later", CHUNK)
    stack.ended(stack.submit_batch(known))
    stack.double.behaviour("slow", delay_ms=1500)
    path = stack.submit_batch(known + rest)
    stack.until(path, lambda view: items_of(view)["done"] == CHUNK)
    assert stack.http.post(f"{path}/pause").is_success
    assert_right(stack.results(path, follow="false"), known)
    assert [line["index"] for line in stack.results(path, follow="false", after=CHUNK - 1)] == [CHUNK - 1]
    assert stack.http.get(f"{path}/results?follow=maybe").status_code == 422
    stack.double.behaviour("ok")
    assert stack.http.post(f"{path}/cancel").is_success


def test_a_cancelled_batch_keeps_its_results_and_marks_the_rest(stack: Stack) -> None:
    known = requests_of("kept", CHUNK)
    stack.ended(stack.submit_batch(known))
    stack.double.behaviour("slow", delay_ms=1000)
    path = stack.submit_batch(known + requests_of("never", 2 * CHUNK))
    stack.until(path, lambda view: items_of(view)["done"] == CHUNK)
    assert stack.http.post(f"{path}/cancel").json()["status"] == "cancelled"
    results = stack.results(path)
    assert_right(results[:CHUNK], known)
    assert {line["errors"][0]["code"] for line in results[CHUNK:]} == {"cancelled"}
    assert len(results) == 3 * CHUNK


def test_results_of_a_run_that_is_not_a_batch_are_refused(stack: Stack) -> None:
    path = stack.submit({"step_id": "s", "type": "wait", "parameters": {"duration": "1ms"}})
    answer = stack.http.get(f"{path}/results")
    assert (answer.status_code, path in answer.json()["detail"]) == (422, True)


def test_batches_are_accepted_while_the_broker_is_down(stack: Stack) -> None:
    requests = requests_of("brokerless", 3 * CHUNK)
    stack.redis.pause()
    try:
        path = stack.submit_batch(requests)
    finally:
        stack.redis.resume()
    assert_right(stack.results(path), requests)


@pytest.fixture(scope="module")
def small(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of an API with small limits."""
    limits = {"MAX_BODY_BYTES": 10_000, "MAX_BATCH_BYTES": 200_000, "MAX_UPLOADS": 1, "UPLOAD_TIMEOUT": 1}
    settings = {f"API__{name}": value for name, value in limits.items()} | {"WORKFLOWS__MAX_BATCH_REQUESTS": 500}
    api = stack.another_api(tmp_path_factory.mktemp("small") / "log", **settings)
    with httpx.Client(base_url=api.url, timeout=60) as client:
        yield client
    api.kill_all()


def test_ndjson_has_a_body_limit_of_its_own(stack: Stack, small: httpx.Client) -> None:
    body = ndjson(requests_of("body", 500))
    assert 10_000 < len(body) < 200_000
    assert small.post(BATCHES, content=body, headers=NDJSON).status_code == 202
    as_json = small.post(BATCHES, json={"requests": requests_of("body", 500)})
    assert (as_json.status_code, as_json.json()["code"]) == (413, "body_too_large")
    before = batches_in(stack)
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    for declared in (line * 200, itertools.repeat(line, 200)):
        refused = small.post(BATCHES, content=declared, headers=NDJSON)
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert batches_in(stack) == before


def test_a_batch_of_too_many_requests_leaves_nothing(stack: Stack, small: httpx.Client) -> None:
    before = batches_in(stack)
    answer = small.post(BATCHES, content=ndjson(requests_of("many", 501)), headers=NDJSON)
    assert (answer.status_code, "500" in answer.json()["detail"]) == (413, True)
    assert batches_in(stack) == before


def test_an_upload_that_stalls_ends_and_meanwhile_others_are_refused(stack: Stack, small: httpx.Client) -> None:
    before = batches_in(stack)
    others: list[httpx.Response] = []

    def submit_other() -> bool:
        others.append(web.post(f"{small.base_url}{BATCHES}", content=ndjson(requests_of("other", 1)), headers=NDJSON))
        return others[-1].status_code == 202

    def stalling() -> Iterator[bytes]:
        yield ndjson(requests_of("stalled", 100))
        eventually(submit_other)
        yield b"\n"

    answer = small.post(BATCHES, content=stalling(), headers=NDJSON)
    assert (answer.status_code, answer.json()["code"]) == (408, "upload_stalled")
    assert (others[0].status_code, others[0].json()["code"]) == (503, "overloaded")
    assert others[0].headers["retry-after"]
    assert batches_in(stack) == before + 1


def test_an_upload_costs_no_memory(stack: Stack, tmp_path: Path) -> None:
    """The process grows by a fraction of the body's 40 MB."""
    api = stack.another_api(tmp_path / "log")
    try:
        with httpx.Client(base_url=api.url, timeout=120) as client:
            line = json.dumps({"text": "some words " * 180}).encode() + b"\n"
            client.post(BATCHES, content=itertools.repeat(line, 1000), headers=NDJSON).raise_for_status()
            before = peak_of(api)
            answer = client.post(BATCHES, content=itertools.repeat(line, 20_000), headers=NDJSON).raise_for_status()
            grown = peak_of(api) - before
            client.post(f"{answer.headers['location']}/cancel").raise_for_status()
        assert grown < 10 * 2**20, f"{grown / 2**20:.1f} MiB"
    finally:
        api.kill_all()


def peak_of(api: Api) -> int:
    """Return the peak memory of the API's processes, in bytes."""
    lines = [line for pid in api.family for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("after", [0, 1, CHUNK - 1, CHUNK, CHUNK + 7, 149, 150, 10_000])
def test_results_resume_after_any_position(stack: Stack, resumable: str, after: int) -> None:
    assert stack.results(resumable, after=after) == stack.results(resumable)[after:]


@pytest.fixture(scope="module")
def resumable(stack: Stack) -> str:
    """A batch that has ended."""
    path = stack.submit_batch(requests_of("resumable", 150))
    stack.ended(path)
    return path


def test_results_resume_while_the_batch_runs(stack: Stack) -> None:
    known = requests_of("before", CHUNK)
    stack.ended(stack.submit_batch(known))
    stack.double.behaviour("slow", delay_ms=1000)
    rest = requests_of("behind", CHUNK)
    path = stack.submit_batch(known + rest)
    lines = stack.results(path, after=CHUNK + 3)
    assert [line["index"] for line in lines] == list(range(CHUNK + 3, 2 * CHUNK))


@pytest.mark.parametrize("after", ["-1", "x", "1.5"])
def test_a_bad_position_is_refused(stack: Stack, resumable: str, after: str) -> None:
    answer = stack.http.get(f"{resumable}/results", params={"after": after})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/after")


def test_another_chunk_size_is_still_the_same_batch(stack: Stack, tmp_path: Path) -> None:
    requests = requests_of("cut anew", 100)
    path = stack.submit_batch(requests, idempotency_key="cut anew")
    api = stack.another_api(tmp_path / "log", WORKFLOWS__BATCH_CHUNK=7)
    try:
        query = {"idempotency_key": "cut anew"}
        again = web.post(f"{api.url}{BATCHES}", params=query, content=ndjson(requests), headers=NDJSON, timeout=60)
        assert (again.status_code, again.headers["location"]) == (202, path)
    finally:
        api.kill_all()


def test_a_batch_survives_the_death_of_both_workers(stack: Stack) -> None:
    """Runs last, since it replaces the stack's workers."""
    requests = requests_of("survivor", 20 * CHUNK)
    stack.double.behaviour("slow", delay_ms=20)
    path = stack.submit_batch(requests)
    stack.until(path, lambda view: items_of(view)["done"] >= 1)
    stack.embeddings.kill()
    stack.start_embeddings()
    done = items_of(stack.show(path))["done"]
    stack.until(path, lambda view: items_of(view)["done"] > min(done, 17 * CHUNK))
    stack.engine.kill()
    stack.start_engine()
    stack.double.behaviour("ok")
    run = stack.ended(path)
    whole = 20 * CHUNK
    assert (run["status"], items_of(run)) == ("succeeded", {"total": whole, "done": whole, "failed": 0, "waiting": 0})
    assert_right(stack.results(path), requests)
