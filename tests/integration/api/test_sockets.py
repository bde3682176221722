"""Limits of heads, bodies, readers and connections, met by raw clients."""

import json
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.api.conftest import StartApi
from tests.integration.api.raw import HOST, answer_to, connected, read_answer
from tests.integration.api.servers import Api, until
from tests.support.web import web

MEGABYTE = 2**20
GET = b"GET /v1/queues HTTP/1.1\r\n" + HOST
POST = b"POST /v1/embeddings/tasks HTTP/1.1\r\n" + HOST
TRICKLE = 0.05


@pytest.fixture(scope="module")
def hasty(start_api: StartApi, models: None) -> Api:
    """An API that waits for nothing longer than a fraction of a second."""
    return start_api(header_timeout=0.5, upload_timeout=0.5, rate_grace=1, min_rate=1000, body_timeout=3, keep_alive=1)


@pytest.fixture(scope="module")
def plain(start_api: StartApi, models: None) -> Api:
    """An API with default limits."""
    return start_api()


def memory_of(api: Api) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in api.family)


def refusals(api: Api, reason: str) -> float:
    lines = web.get(f"{api.url}/metrics").text.splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith(f'citadel_api_refused_total{{reason="{reason}"')
    )


def trickle(begin: bytes, piece: bytes) -> Iterator[bytes]:
    """Send a beginning, and then one small piece after the other, without end."""
    yield begin
    while True:
        time.sleep(TRICKLE)
        yield piece


@pytest.mark.parametrize(
    ("pieces", "status", "code"),
    [
        pytest.param([GET + b"X-Long: " + b"a" * 40_000 + b"\r\n\r\n"], 431, "headers_too_large", id="one-header"),
        pytest.param([GET + b"a: b\r\n" * 5000 + b"\r\n"], 431, "headers_too_large", id="many-headers"),
        pytest.param([GET + b"a: b\r\n" * 101 + b"\r\n"], 431, "headers_too_large", id="one-too-many"),
        pytest.param([GET, b"X: " + b"a" * MEGABYTE * 8], 431, "headers_too_large", id="an-endless-value"),
        pytest.param([GET, b"a" * MEGABYTE * 8], 431, "headers_too_large", id="an-endless-name"),
        pytest.param([b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"], 414, "url_too_long", id="url"),
        pytest.param([b"GET /?" + b"a" * MEGABYTE * 8], 414, "url_too_long", id="an-endless-url"),
        pytest.param([b"\x16\x03\x01\x02\x00"], 400, "malformed_request", id="tls"),
        pytest.param([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 400, "malformed_request", id="http2"),
    ],
)
def test_a_head_beyond_a_limit_is_refused(plain: Api, pieces: list[bytes], status: int, code: str) -> None:
    before = refusals(plain, code)
    answer = answer_to(plain.port, pieces)
    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
    assert "connection: close" in answer.head
    assert "content-type: application/problem+json" in answer.head
    assert refusals(plain, code) == before + 1


def test_a_head_within_the_limits_is_served(plain: Api) -> None:
    headers = b"".join(b"x-%d: %s\r\n" % (number, b"a" * 300) for number in range(95))
    answer = answer_to(plain.port, [GET + b"Connection: close\r\n" + headers + b"\r\n"])
    assert answer.status == 200


def test_errors_of_heads_have_openais_form_on_its_routes(plain: Api) -> None:
    answer = answer_to(plain.port, [b"POST /v1/embeddings HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 200 + b"\r\n"])
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (431, "headers_too_large")


def test_endless_headers_cost_no_memory(plain: Api) -> None:
    """Twenty connections send eight megabytes each."""
    before = memory_of(plain)
    connections = [connected(plain.port) for _ in range(20)]
    grown = 0
    for connection in connections:
        for piece in (GET, *[b"a: " + b"b" * 65_000 + b"\r\n"] * 125):
            try:
                connection.sendall(piece)
            except OSError:
                break
        grown = max(grown, memory_of(plain) - before)
    for connection in connections:
        connection.close()
    assert grown < 20 * MEGABYTE


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(GET + b"Transfer-Encoding: chunked\r\n\r\n5;", id="chunk-extension"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: ", id="trailer"),
    ],
)
def test_chunk_extensions_and_trailers_have_the_limit_of_headers(plain: Api, begin: bytes) -> None:
    answer = answer_to(plain.port, [begin, *[b"a" * 65_536] * 40])
    assert answer.status in (200, 422, 431)
    if answer.status == 431:
        assert json.loads(answer.body)["code"] == "headers_too_large"
    assert refusals(plain, "headers_too_large") > 0


def test_a_trailer_does_not_become_a_header(plain: Api) -> None:
    """`Content-Encoding` as a header would be refused."""
    body = b"2\r\n{}\r\n0\r\nContent-Encoding: gzip\r\nContent-Type: text/html\r\n\r\n"
    answer = answer_to(plain.port, [POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", body])
    assert answer.status == 422


@pytest.mark.parametrize("piece", [b"a", b"b: c\r\n"])
def test_headers_that_trickle_in_are_timed_out(hasty: Api, piece: bytes) -> None:
    answer = answer_to(hasty.port, trickle(GET + b"x: ", piece))
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "headers_timed_out")


@pytest.mark.parametrize("begin", [b"", GET + b"\r\n"], ids=["new", "kept-alive"])
def test_a_connection_without_a_request_is_closed(hasty: Api, begin: bytes) -> None:
    """Empty lines before a request are no request."""
    answer = answer_to(hasty.port, trickle(begin, b"\r\n"))
    assert answer.status in (0, 200)


@pytest.mark.parametrize("route", [b"/v1/embeddings/tasks", b"/v1/embeddings", b"/v1/workflows"])
def test_a_body_that_trickles_in_is_refused(hasty: Api, route: bytes) -> None:
    """It brings something all the time, but less than the lowest rate."""
    head = b"POST " + route + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n"
    answer = answer_to(hasty.port, trickle(head, b" "))
    body = json.loads(answer.body)
    assert (answer.status, (body.get("error") or body)["code"]) == (408, "upload_stalled")


def test_a_batch_that_trickles_in_gives_back_its_place_and_leaves_nothing(start_api: StartApi, models: None) -> None:
    """It brings whole requests all the time, and has a transaction open."""
    api = start_api(max_uploads=1, rate_grace=0.5, min_rate=10_000)
    head = b"POST /v1/embeddings/batches HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-ndjson\r\n"
    answer = answer_to(api.port, trickle(head + b"Content-Length: 1000000\r\n\r\n", b'{"text": "a"}\n'))
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "upload_stalled")
    line, kind = b'{"text": "a"}\n', {"content-type": "application/x-ndjson"}
    until(
        lambda: web.post(f"{api.url}/v1/embeddings/batches", content=line, headers=kind).status_code == 202, "a place"
    )
    assert len(web.get(f"{api.url}/v1/runs?kind=batch").json()["runs"]) == 1


def test_a_body_that_stops_is_refused(hasty: Api) -> None:
    with connected(hasty.port) as connection:
        connection.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000)
        answer = read_answer(connection)
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "upload_stalled")


def test_a_body_that_takes_too_long_in_all_is_refused(hasty: Api) -> None:
    head = POST + b"Content-Length: 10000000\r\n\r\n"
    answer = answer_to(hasty.port, trickle(head, b" " * 500))
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "upload_stalled")
    assert b"not complete after 3 s" in answer.body


def test_the_rest_of_a_refused_body_is_not_awaited(hasty: Api) -> None:
    """The response came before the body's end; what trickles in after it does not keep the connection open."""
    head = b"POST /v1/nothing HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n"
    assert answer_to(hasty.port, trickle(head, b" ")).status == 404


def test_a_flood_of_pipelined_requests_is_cut_off(plain: Api) -> None:
    """The first are served in order, the others are not kept in memory."""
    before = memory_of(plain)
    answer = answer_to(plain.port, [(GET + b"\r\n") * 50_000])
    served = (answer.head.encode() + answer.body).lower().count(b"http/1.1 200")
    assert 1 <= served < 1000
    assert memory_of(plain) - before < 20 * MEGABYTE


def test_pipelined_requests_are_served_in_order(plain: Api) -> None:
    last = GET.replace(b"queues", b"nothing") + b"Connection: close\r\n\r\n"
    answer = answer_to(plain.port, [(GET + b"\r\n") * 5 + last])
    everything = answer.head.encode() + answer.body.lower()
    assert everything.count(b"http/1.1 200") == 5
    assert everything.rindex(b"http/1.1 200") < everything.index(b"http/1.1 404")


def test_garbage_behind_a_request_does_not_harm_its_response(plain: Api) -> None:
    answer = answer_to(plain.port, [GET + b"\r\n" + b"\x00garbage\r\n\r\n"])
    assert answer.status == 200
    json.loads(answer.body)


BODY = b'{"text": ["read", 7]}'
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
LENGTH = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize("protocol", [UPGRADE, UPGRADE.replace(b"h2c", b"websocket")], ids=["h2c", "websocket"])
@pytest.mark.parametrize(("framing", "body"), [(LENGTH, BODY), (CHUNKED, CHUNKS)], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1, 100_000], ids=["byte by byte", "at once"])
def test_a_request_that_asks_for_another_protocol_is_served_in_this_one(
    plain: Api, protocol: bytes, framing: bytes, body: bytes, size: int
) -> None:
    """With its body, and those behind it on the connection; a JDK's client asks for HTTP/2 each time."""
    request = POST + protocol + framing + body
    last = GET + protocol + b"\r\n" + GET + b"Connection: close\r\n\r\n"
    sent = request + request + last
    answer = answer_to(plain.port, [sent[start : start + size] for start in range(0, len(sent), size)])
    answers = (answer.head.encode() + answer.body).lower().split(b"http/1.1 ")[1:]
    assert [each[:3] for each in answers] == [b"422", b"422", b"200", b"200"]
    assert [b"text[1]" in each for each in answers] == [True, True, False, False]


def test_a_tunnel_is_refused(plain: Api) -> None:
    tunnel = b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = answer_to(plain.port, [tunnel + b"\x16\x03\x01" * 100])
    assert 400 <= answer.status < 500
    assert b"\r\nHTTP/1.1" not in answer.body


def test_connections_of_one_client_are_limited(start_api: StartApi) -> None:
    """Clients of other addresses, and proxies that are trusted, have connections of their own."""
    api = start_api(max_client_connections=5, trusted_proxies="[]", header_timeout=60)
    crowd = [connected(api.port) for _ in range(5)]
    answer = answer_to(api.port, [GET + b"\r\n"])
    assert (answer.status, json.loads(answer.body)["code"]) == (429, "too_many_connections")
    assert "retry-after" in answer.head
    other = socket.create_connection(("127.0.0.1", api.port), 60, source_address=("127.0.0.2", 0))
    other.sendall(GET + b"Connection: close\r\n\r\n")
    assert read_answer(other).status == 200
    crowd.pop().close()
    until(lambda: web.get(f"{api.url}/v1/queues").status_code == 200, "the free place")
    assert refusals(api, "too_many_connections") >= 1
    for connection in (*crowd, other):
        connection.close()


def test_connections_in_all_are_limited_and_probes_are_served_all_the_same(start_api: StartApi) -> None:
    """More connections than are heard above the limit do not keep the probes out either."""
    api = start_api(max_connections=5, header_timeout=60)
    crowd = [connected(api.port) for _ in range(60)]
    answer = answer_to(api.port, [GET + b"\r\n"])
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "overloaded")
    assert "retry-after" in answer.head
    assert web.get(f"{api.url}/livez").status_code == 200
    for connection in crowd:
        connection.close()
    until(lambda: web.get(f"{api.url}/v1/queues").status_code == 200, "free places")


def test_trusted_proxies_have_no_limit_of_their_own(start_api: StartApi) -> None:
    api = start_api(max_client_connections=5, header_timeout=60)
    crowd = [connected(api.port) for _ in range(10)]
    assert web.get(f"{api.url}/v1/queues").status_code == 200
    for connection in crowd:
        connection.close()


def test_a_client_that_reads_nothing_is_cut_off(start_api: StartApi, models: None) -> None:
    """It asks one question after the other, until the responses fill all buffers of the system."""
    api = start_api(write_timeout=0.5)
    with connected(api.port, receive_buffer=4096) as connection:
        for asked in range(1, 1000):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n")
            until(lambda n=asked: served(api) >= n or refusals(api, "slow_reader"), "the response or the end")
            if refusals(api, "slow_reader"):
                break
    assert refusals(api, "slow_reader") == 1


def served(api: Api) -> float:
    """Return the number of requests served, without those for metrics."""
    lines = [line for line in web.get(f"{api.url}/metrics").text.splitlines() if "/metrics" not in line]
    return sum(float(line.split()[-1]) for line in lines if line.startswith("citadel_api_requests_total{"))


def test_a_client_that_reads_slowly_gets_its_whole_response(start_api: StartApi) -> None:
    api = start_api(write_timeout=0.5)
    with connected(api.port, receive_buffer=4096) as connection:
        connection.sendall((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 15)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        received = b""
        while piece := connection.recv(4096):
            received += piece
            time.sleep(0.002)
    assert received.count(b"HTTP/1.1 200") == 16
    assert refusals(api, "slow_reader") == 0
