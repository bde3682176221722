"""Memory of bodies, and streams that are followed: budgets of a process."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.api.conftest import StartApi
from tests.integration.api.raw import HOST, connected
from tests.integration.api.servers import Api, until
from tests.integration.api.stack import Stack
from tests.support.web import web

MEGABYTE = 2**20
BOMBS = {
    "lists": b'{"text": [' + b",".join([b"[]"] * 300_000) + b"]}",
    "nested": b'{"text": [' + b",".join([b"[" * 50 + b"]" * 50] * 20_000) + b"]}",
    "objects": b'{"text": [' + b",".join([b'{"a":1}'] * 300_000) + b"]}",
    "names": b"{" + b",".join(b'"%x":1' % number for number in range(200_000)) + b"}",
    "numbers": b'{"text": [' + b",".join([b"1"] * 1_000_000) + b"]}",
    "nulls": b'{"text": [' + b",".join([b"null"] * 600_000) + b"]}",
}
ROUTES = ("/v1/embeddings/tasks", "/v1/embeddings", "/v1/cache/warm", "/v1/embeddings/batches", "/v1/workflows")


@pytest.fixture(scope="module")
def small(start_api: StartApi, models: None) -> Api:
    """An API with 64 MiB for bodies."""
    return start_api(max_body_memory=64 * MEGABYTE)


def peak_of(api: Api) -> int:
    """Return the most memory that the server process has had."""
    worker = max(api.family, key=lambda pid: psutil.Process(pid).create_time())
    status = Path(f"/proc/{worker}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_body_that_grows_when_it_is_parsed_is_refused(small: Api, bomb: str, route: str) -> None:
    """One of two megabytes would take a hundred; the answer comes at once, however many values are wrong."""
    before = peak_of(small)
    answer = web.post(f"{small.url}{route}", content=BOMBS[bomb], timeout=30)
    assert answer.status_code in (400, 413, 422)
    assert len(answer.content) < MEGABYTE
    assert peak_of(small) - before < 100 * MEGABYTE


def test_prose_of_the_same_size_is_not_taken_for_a_bomb(small: Api) -> None:
    prose = 'so he said: "wait, {wait}", [and] went; ' * 100_000
    answer = web.post(f"{small.url}/v1/embeddings/tasks", json={"text": prose}, timeout=30)
    assert answer.json()["code"] in ("text_too_long", "invalid_input", "payload_too_large")
    assert "characters" in answer.json()["detail"]


def test_bodies_that_find_the_memory_taken_wait_and_are_refused(small: Api) -> None:
    """Clients that stop in the middle of large bodies hold what they have sent; probes and small bodies go on."""
    head = b"POST /v1/embeddings/tasks HTTP/1.1\r\n" + HOST + b"Content-Length: 16000000\r\n\r\n"
    holding = [_begun(small, head + b" " * 13 * MEGABYTE) for _ in range(4)]
    refused = connected(small.port)
    refused.sendall(head + b" " * 12 * MEGABYTE)
    refused.sendall(b" " * (16_000_000 - 12 * MEGABYTE))
    answer = _first_answer(refused)
    assert b" 503 " in answer.split(b"\r\n")[0]
    assert b"retry-after" in answer.lower()
    assert web.post(f"{small.url}/v1/embeddings/tasks", json={"text": "a"}).status_code == 202
    for connection in (*holding, refused):
        connection.close()
    until(lambda: web.post(f"{small.url}/v1/embeddings/tasks", content=b" " * 12 * MEGABYTE).status_code == 400, "room")


def test_many_large_texts_at_once_keep_to_the_budget(start_api: StartApi, models: None) -> None:
    """Each takes five times its size: one wide character makes all of its text wide."""
    api = start_api(max_body_memory=64 * MEGABYTE)
    before = peak_of(api)
    body = f'{{"steps": ["{"x" * 10 * MEGABYTE}😀"]}}'.encode()
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: web.post(f"{api.url}/v1/workflows", content=body, timeout=60), range(16)))
    assert {answer.status_code for answer in answers} <= {422, 503}
    assert peak_of(api) - before < (64 + 48) * MEGABYTE


def _begun(api: Api, data: bytes) -> socket.socket:
    connection = connected(api.port)
    connection.sendall(data)
    return connection


def _first_answer(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received and (piece := connection.recv(65536)):
        received += piece
    return received


@pytest.mark.parametrize(
    ("limit", "status", "code"), [("CALLER_FOLLOWERS", 429, "too_many_streams"), ("FOLLOWERS", 503, "overloaded")]
)
def test_followers_are_limited(stack: Stack, tmp_path: Path, limit: str, status: int, code: str) -> None:
    run = stack.submit({"step_id": "w", "type": "wait", "parameters": {"signal": "never"}})
    api = stack.another_api(tmp_path / "log", **{f"API__MAX_{limit}": 3})
    try:
        following = [_follow(api, run) for _ in range(3)]
        answer = web.get(f"{api.url}{run}/events")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "retry-after" in answer.headers
        assert web.head(f"{api.url}{run}/events").status_code == 200
        following.pop().close()
        until(lambda: _streams(api, run), "the free place")
        for connection in following:
            connection.close()
    finally:
        api.kill_all()
        stack.http.post(f"{run}/cancel")


def _follow(api: Api, run: str) -> socket.socket:
    connection = connected(api.port)
    connection.sendall(f"GET {run}/events HTTP/1.1\r\n".encode() + HOST + b"\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    return connection


def _streams(api: Api, run: str) -> bool:
    with httpx.stream("GET", f"{api.url}{run}/events") as answer:
        return answer.status_code == 200
