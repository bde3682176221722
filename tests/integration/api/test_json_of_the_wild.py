"""JSON as clients really send it: a value goes to PostgreSQL and back exactly, or is refused with its place."""

import json
import socket
from typing import Any

import httpx
import pytest

from tests.integration.api.stack import BATCHES, NDJSON, WAIT, Stack
from tests.support.celery_client import PlainClient
from tests.support.planted import CREDENTIALS

JSON = {"content-type": "application/json"}
BEYOND = b"12345678901234567890123"
KEPT = {
    "the widest integers": b'{"n":[9223372036854775807,-9223372036854775808]}',
    "negative zero": b'{"n":[-0.0,0]}',
    "the widest doubles": b'{"n":[1.7976931348623157e308,5e-324]}',
    "a longest fraction": b'{"n":0.12345678901234568}',
    "empty names": b'{"":{"":[{"":null}]}}',
    "60 levels": b'{"d":' + b"[" * 60 + b"]" * 60 + b"}",
    "a name of 900 kB": b'{"' + b"k" * 900_000 + b'":1}',
    "all planes of Unicode": '{"é\u2028😀":"\ufeff\uffff𐀀"}'.encode(),
}
CHANGED = [
    pytest.param(b'{"a":1,"a":{"b":2,"b":3}}', {"a": {"b": 3}}, id="the last of equal names counts"),
    pytest.param(b'{"n":-0}', {"n": 0}, id="an integer has no negative zero"),
    pytest.param(b'{"n":1e-400}', {"n": 0.0}, id="too small for a double"),
    pytest.param(b'{"n":0.1234567890123456789012}', {"n": 0.12345678901234568}, id="precision of a double"),
]
REFUSED = [
    pytest.param(b'{"x":[{"n":%b}]}' % BEYOND, 422, "/x/0/n", id="integer beyond 64 bits"),
    pytest.param(b'{"n":-9223372036854775809}', 422, "/n", id="integer below 64 bits"),
    pytest.param(b'{"n":[0,1e999]}', 422, "/n/1", id="too large for a double"),
    pytest.param(b'{"n":-1E+0400}', 422, "/n", id="huge exponent"),
    pytest.param(b'{"n":1%b}' % (b"0" * 4000), 422, "/n", id="4,000 digits"),
    pytest.param(b'{"n":1%b}' % (b"0" * 5000), 400, None, id="5,000 digits"),
    pytest.param(b'{"n":NaN}', 400, None, id="NaN"),
    pytest.param(b'{"n":-Infinity}', 400, None, id="infinity"),
    pytest.param(b'{"t":"\\ud800"}', 400, None, id="half of a surrogate pair"),
    pytest.param(b'{"t":"\xff"}', 400, None, id="not UTF-8"),
    pytest.param('{"t":1}'.encode("utf-16"), 400, None, id="UTF-16"),
    pytest.param(b'{"d":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, None, id="10,000 levels"),
    pytest.param(b'{"d":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, 400, None, id="10,000 objects"),
]
STORED_AS_TEXT = [
    pytest.param(b'{"t":"a\\u0000b"}', "/t", id="NUL"),
    pytest.param(b'{"a\\u0000b":1}', "", id="NUL in a name"),
    pytest.param(b'{"n":9223372036854775808}', "/n", id="unsigned"),
]
"""What definitions refuse beside; their expressions could not work on it."""


def workflow(context: bytes) -> bytes:
    step = b'{"step_id":"s","type":"wait","parameters":{"duration":"1ms"}}'
    return b'{"context":%b,"steps":[%b],"output":"${{ context }}"}' % (context, step)


def post(stack: Stack, path: str, body: bytes, headers: Any = None) -> httpx.Response:
    return stack.http.post(path, content=body, headers=headers or JSON)


def check_refusal(answer: httpx.Response, status: int, pointer: str | None) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), answer.text[:500]
    assert len(answer.content) < 5000
    if pointer is not None:
        assert [error["pointer"] for error in problem["errors"]] == [pointer]


def output_of(stack: Stack, path: str) -> str:
    """Return the output of a run as the API writes it, once it has ended."""
    assert stack.ended(path)["status"] == "succeeded"
    text = stack.http.get(path).text
    return text[text.index('"output":') + len('"output":') : text.index(',"final_context"')]


class TestContexts:
    @pytest.mark.parametrize("context", KEPT.values(), ids=KEPT)
    def test_a_value_comes_back_exactly(self, stack: Stack, context: bytes) -> None:
        answer = post(stack, "/v1/workflows", workflow(context))
        assert answer.status_code == 202, answer.text[:500]
        found = output_of(stack, answer.headers["location"])
        expected = context[:-1].decode() + ',"s":{}}'
        assert found == expected or json.loads(found) == json.loads(expected)
        assert repr(json.loads(found)) == repr(json.loads(expected))

    @pytest.mark.parametrize(("context", "kept"), CHANGED)
    def test_a_value_becomes_what_the_guide_says(self, stack: Stack, context: bytes, kept: Any) -> None:
        answer = post(stack, "/v1/workflows", workflow(context))
        found = json.loads(output_of(stack, answer.headers["location"]))
        assert repr(found) == repr(kept | {"s": {}})

    @pytest.mark.parametrize(("context", "status", "pointer"), REFUSED)
    def test_a_value_is_refused_with_its_place(
        self, stack: Stack, context: bytes, status: int, pointer: str | None
    ) -> None:
        for path in ("/v1/workflows", "/v1/workflows/plan"):
            answer = post(stack, path, workflow(context))
            check_refusal(answer, status, None if pointer is None else f"/context{pointer}")

    @pytest.mark.parametrize(("context", "pointer"), STORED_AS_TEXT)
    def test_what_expressions_cannot_hold_is_refused(self, stack: Stack, context: bytes, pointer: str) -> None:
        check_refusal(post(stack, "/v1/workflows", workflow(context)), 422, f"/context{pointer}")

    def test_a_byte_order_mark_is_skipped(self, stack: Stack) -> None:
        assert post(stack, "/v1/workflows", b"\xef\xbb\xbf" + workflow(b"{}")).status_code == 202


class TestSignals:
    KEPT_BESIDE = (b'{"a\\u0000":"b\\u0000"}', b"[18446744073709551615]", b"[" * 190 + b"]" * 190)

    @pytest.mark.parametrize("payload", [*KEPT.values(), *KEPT_BESIDE], ids=lambda value: str(value[:20]))
    def test_a_payload_comes_back_exactly(self, stack: Stack, payload: bytes) -> None:
        path = stack.submit(WAIT)
        answer = post(stack, f"{path}/signals/go", payload)
        assert answer.status_code == 202, answer.text[:500]
        assert repr(json.loads(output_of(stack, path))) == repr(json.loads(payload))

    @pytest.mark.parametrize(("payload", "status", "pointer"), REFUSED)
    def test_a_payload_is_refused_with_its_place(
        self, stack: Stack, payload: bytes, status: int, pointer: str | None
    ) -> None:
        path = stack.submit(WAIT)
        check_refusal(post(stack, f"{path}/signals/go", payload), status, pointer)
        post(stack, f"{path}/cancel", b"")


class TestBatches:
    LINE = b'{"text":"a"}\n'

    @pytest.mark.parametrize(("value", "status", "pointer"), REFUSED)
    def test_a_line_is_refused_with_its_place(
        self, stack: Stack, value: bytes, status: int, pointer: str | None
    ) -> None:
        """The empty line counts as a line, not as a request."""
        bad = b'{"text":"b","options":%b}' % value
        answer = post(stack, BATCHES, self.LINE + b"\n" + bad + b"\n", NDJSON)
        check_refusal(answer, status, None if pointer is None else f"/requests/1/options{pointer}")
        assert ("line 3" in answer.json()["detail"]) == (status == 400)
        body = b'{"requests":[%b,%b]}' % (self.LINE, bad)
        answer = post(stack, BATCHES, body)
        check_refusal(answer, status, None if pointer is None else f"/requests/1/options{pointer}")

    def test_texts_and_ids_come_back_exactly(self, stack: Stack) -> None:
        ids = ["a\0b", "", 2**64 - 1, -(2**63), "😀", "k" * 1_000_000]
        path = stack.submit_batch([{"text": f"t\0{number}", "request_id": name} for number, name in enumerate(ids)])
        assert [line["request_id"] for line in stack.results(path)] == ids
        assert [line["errors"] for line in stack.results(path)] == [[]] * len(ids)


class TestTasks:
    @pytest.mark.parametrize(("value", "status", "pointer"), REFUSED)
    def test_options_are_refused_with_their_place(
        self, stack: Stack, value: bytes, status: int, pointer: str | None
    ) -> None:
        answer = post(stack, "/v1/embeddings/tasks", b'{"text":"a","options":%b}' % value)
        check_refusal(answer, status, None if pointer is None else f"/options{pointer}")
        answer = post(stack, "/v1/embeddings", b'{"input":"a","options":%b}' % value)
        assert answer.status_code == 400
        assert pointer is None or answer.json()["error"]["errors"][0]["pointer"] == f"/options{pointer}"

    @pytest.mark.parametrize("number", [10**22, -(10**22), float("inf"), float("nan")])
    def test_a_plain_celery_client_gets_the_place_too(self, stack: Stack, number: float) -> None:
        definition = {"context": {"x": [{"n": number}]}, "steps": [WAIT]}
        with PlainClient(stack.redis.url) as client:
            sent = client.publish("execute_workflow", [definition], queue="orchestration")
            reason = str(sent.get(timeout=60, propagate=False))
            assert "/context/x/0/n: a number must be finite, and an integer fit into 64 bits" in reason
            options = client.error("generate_embedding", "text", options={"n": [number]})
            assert options.startswith("InvalidInput: options: cannot be sent to a backend: /n/0: ")

    def test_a_number_of_a_celery_client_is_not_rounded(self, stack: Stack) -> None:
        context = {"n": [2**63 - 1, -(2**63), 0.1, 1e300]}
        wait = {"step_id": "s", "type": "wait", "parameters": {"duration": "1ms"}}
        with PlainClient(stack.redis.url) as client:
            sent = client.publish("execute_workflow", [{"context": context, "steps": [wait]}], queue="orchestration")
            assert repr(sent.get(timeout=60)["final_context"]["n"]) == repr(context["n"])


class TestNames:
    @pytest.mark.parametrize("path", ["/v1/workflows", "/v1/embeddings/tasks", "/v1/cache/warm"])
    def test_a_field_with_a_name_of_a_megabyte_gets_a_short_answer(self, stack: Stack, path: str) -> None:
        check_refusal(post(stack, path, b'{"%b":1}' % (b"f" * 1_000_000)), 422, None)

    @pytest.mark.parametrize("field", ["model", "input_type", "encoding_format"])
    def test_a_value_of_a_megabyte_gets_a_short_answer(self, stack: Stack, field: str) -> None:
        answer = post(stack, "/v1/embeddings", b'{"input":"a","%b":"%b"}' % (field.encode(), b"m" * 1_000_000))
        assert answer.status_code in (400, 404)
        assert len(answer.content) < 10_000

    @pytest.mark.parametrize("name", ["%00", "a%00b", "%ff", "%ed%a0%80", "%F0%9F%98%80", "a%2Fb", "%0d%0a"])
    def test_names_in_paths_are_found_or_not(self, stack: Stack, name: str) -> None:
        run = stack.submit(WAIT)
        for path in ("/v1/runs", "/v1/tasks", f"{run}/steps", "/v1/dead-letters", "/v1/history", "/v1/models"):
            assert stack.http.get(f"{path}/{name}").status_code == 404, path
        assert post(stack, f"/v1/collections/{name}/search", b'{"text":"a"}').status_code in (404, 422)
        assert post(stack, f"{run}/signals/{name}", b"{}").status_code in (404, 422)
        post(stack, f"{run}/cancel", b"")


class TestHeaders:
    @pytest.mark.parametrize(
        "kind", ["application/json; charset=utf-8", 'application/json;charset="UTF8"', "application/vnd.x+json", ""]
    )
    def test_other_names_of_json_pass(self, stack: Stack, kind: str) -> None:
        answer = post(stack, "/v1/embeddings", b'{"input":"a"}', {"content-type": kind})
        assert answer.status_code == 200, answer.text

    def test_a_body_without_a_type_is_json(self, stack: Stack) -> None:
        assert stack.http.post("/v1/embeddings", content=b'{"input":"a"}').status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"content-type": "application/json; charset=utf-16"},
            {"content-type": "application/json; charset=iso-8859-1"},
            {"content-type": "text/plain;charset=UTF-8"},
            JSON | {"content-encoding": "gzip"},
            JSON | {"content-encoding": "br"},
        ],
    )
    def test_what_is_not_plain_json_in_utf_8_is_415(self, stack: Stack, headers: dict[str, str]) -> None:
        answer = post(stack, "/v1/embeddings", b'{"input":"a"}', headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")

    def test_a_client_that_waits_for_100_gets_it_or_the_refusal(self, stack: Stack) -> None:
        body = b'{"input":"a"}'
        assert _expecting(stack, len(body), {}).startswith(b"HTTP/1.1 100 Continue")
        assert _expecting(stack, 17 * 2**20, {}).startswith(b"HTTP/1.1 413 ")
        assert _expecting(stack, len(body), {"Content-Encoding": "gzip"}).startswith(b"HTTP/1.1 415 ")


def _expecting(stack: Stack, length: int, headers: dict[str, str]) -> bytes:
    """Return the first bytes of the answer to the head of a request alone."""
    head = {"Host": "localhost", "Content-Length": str(length), "Expect": "100-continue", **CREDENTIALS, **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    with socket.create_connection(("127.0.0.1", stack.api.port), timeout=30) as connection:
        connection.sendall(f"POST /v1/embeddings HTTP/1.1\r\n{lines}\r\n".encode())
        return connection.recv(4096)
