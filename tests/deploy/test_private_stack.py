"""A stack behind nginx whose servers have certificates of a private authority: before and after it is trusted.

The tests share the stack and follow each other as an operator's changes do.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from citadel_client import Citadel
from citadel_client.errors import RunFailed
from tests.deploy.engine import CommandFailed, require_engine
from tests.deploy.private_stack import LLM, MODEL, PrivateStack, has_ipv6, private_stack
from tests.deploy.stack import LONG
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
REMEDY = "name the authority's certificate in CA_FILE of the server or in SSL_CERT_FILE"
ONE_TEXT = 200_000
"""Most characters of a text."""
SILENCE = 60.0
"""Seconds: an open stream has a sign of life every two."""
MOST = 256
"""Requests of one address at once."""


@pytest.fixture(scope="module")
def distrusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateStack]:
    """Start the stack, which does not trust the authority."""
    require_engine()
    with private_stack(tmp_path_factory.mktemp("private")) as found:
        yield found


@pytest.fixture(scope="module")
def stack(distrusting: PrivateStack) -> PrivateStack:
    """Start it again with the override of the guide, and with TLS to its stores; two replicas of the API."""
    distrusting.trust()
    distrusting.use_tls()
    distrusting.up("--scale", "api=2")
    return distrusting


@pytest.fixture
def http(distrusting: PrivateStack) -> Iterator[httpx.Client]:
    """Return a client of nginx with the operator's key."""
    headers = {"authorization": f"Bearer {distrusting.key}"}
    with httpx.Client(base_url=distrusting.url, headers=headers, verify=distrusting.tls, timeout=LONG) as client:
        yield client


@pytest.fixture
def citadel(distrusting: PrivateStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Citadel]:
    """Return the SDK's client of nginx."""
    monkeypatch.setenv("SSL_CERT_FILE", str(distrusting.authority.file))
    with Citadel(distrusting.url, distrusting.key, timeout=LONG) as found:
        yield found


def workflow(step: dict) -> dict:
    return {"steps": [{"step_id": "only"} | step], "defaults": {"retry": {"max_attempts": 1}}}


ASK = {"type": "llm_query", "parameters": {"query": "Who are you?"}}
EMBED = {"type": "embedding", "parameters": {"text": "a text", "model": MODEL}}
SEARCH = {"type": "vector_search", "parameters": {"collection": "docs", "embedding": [0.1] * 768, "limit": 1}}


class TestWithoutTrust:
    @pytest.mark.parametrize("step", [ASK, EMBED, SEARCH], ids=lambda step: step["type"])
    def test_a_call_fails_and_names_the_setting(self, citadel, step):
        with pytest.raises(RunFailed, match=REMEDY):
            citadel.workflows.submit(workflow(step)).wait(LONG)

    def test_the_log_says_why_no_span_is_exported(self, distrusting):
        def reasons() -> list[str]:
            lines = distrusting.compose("logs", "--no-color", "--no-log-prefix", "orchestration").splitlines()
            found = [json.loads(line) for line in lines if "spans_not_exported" in line]
            return [line["reason"] for line in found]

        assert REMEDY in eventually(reasons, LONG)[0]

    @pytest.mark.parametrize(
        ("service", "variable", "value", "setting"),
        [
            ("embeddings", "CITADEL_BROKER_URL", "rediss://redis.private.test:6380/0", "SSL_CERT_FILE"),
            (
                "migrate",
                "CITADEL_POSTGRES_DSN",
                "postgresql://citadel@postgres.private.test/citadel?sslmode=verify-full",
                "sslrootcert",
            ),
        ],
    )
    def test_a_store_is_not_used_and_the_setting_is_named(self, distrusting, service, variable, value, setting):
        with pytest.raises(CommandFailed, match=setting):
            distrusting.compose("run", "--rm", "--no-deps", "-T", "-e", f"{variable}={value}", service)


@pytest.mark.usefixtures("stack")
class TestWithTheGuidesOverride:
    def test_a_workflow_calls_every_server(self, citadel):
        citadel.collections.store("docs", [{"id": 1, "text": "a text"}], model=MODEL)
        found = {"type": "vector_search", "parameters": {"collection": "docs", "text": "a text", "model": MODEL}}
        ask = {
            "step_id": "asked",
            "parameters": {"query": "Sum up ${{ steps.found.output.hits }}"},
            "type": "llm_query",
        }
        steps = [{"step_id": "found"} | found, ask]
        output = {"hits": "${{ steps.found.output.hits }}", "model": "${{ steps.asked.output.model }}"}
        run = citadel.workflows.submit({"steps": steps, "output": output}).wait(LONG)
        assert ([hit["id"] for hit in run.output["hits"]], run.output["model"]) == ([1], LLM)

    def test_spans_reach_their_receiver(self, stack):
        eventually(lambda: '"POST /v1/traces HTTP/1.1" 200' in stack.compose("logs", "--no-color", "tls"), LONG)

    def test_every_connection_to_postgresql_is_encrypted(self, stack):
        query = (
            "select count(*), count(*) filter (where ssl) from pg_stat_ssl join pg_stat_activity using (pid) "
            "where client_addr is not null"
        )
        shown = stack.compose("exec", "-T", "postgres", "psql", "-U", "citadel", "-Atc", query)
        connections, encrypted = shown.strip().split("|")
        assert int(connections) == int(encrypted) > 0


@pytest.mark.skipif(not has_ipv6(), reason="the kernel has no IPv6")
@pytest.mark.parametrize("place", ["api:8080", "orchestration:9464", "qdrant:6333", "redis:6380", "postgres:5432"])
def test_processes_and_stores_listen_on_ipv6_by_the_guides_override(stack, place):
    host, port = place.split(":")
    program = f"import socket as s; s.socket(s.AF_INET6).connect(s.getaddrinfo({host!r}, {port}, s.AF_INET6)[0][4])"
    stack.compose("exec", "-T", "api", "python", "-c", program)


@pytest.mark.usefixtures("stack")
class TestBehindNginx:
    def test_events_arrive_while_the_run_goes_on(self, http):
        waits = {"type": "wait", "parameters": {"signal": "go"}}
        run = http.post("/v1/workflows", json=workflow(waits)).raise_for_status().json()["run_id"]
        accept = {"accept": "text/event-stream"}
        with http.stream("GET", f"/v1/runs/{run}/events", headers=accept, timeout=SILENCE) as events:
            lines = events.iter_lines()
            assert any("step_waiting" in line for line in lines)  # a proxy that holds events back never gets here
            http.post(f"/v1/runs/{run}/signals/go", json={}).raise_for_status()
            assert any(line == "event: end" for line in lines)

    def test_replicas_share_the_requests(self, stack, http):
        def upstreams() -> set[str]:
            http.get("/v1/models").raise_for_status()
            lines = stack.compose("logs", "--no-color", "--no-log-prefix", "proxy").splitlines()
            return {line.rpartition(" ")[2] for line in lines if " /v1/models 200 " in line}

        eventually(lambda: len(upstreams()) == 2, LONG)

    def test_headers_that_are_too_large_are_refused(self, http):
        answer = http.get("/v1/models", headers={"x-large": "x" * 9000})
        assert (answer.status_code, answer.json()["code"]) == (431, "headers_too_large")
        many = http.get("/v1/models", headers={f"x-{number}": "x" * 1000 for number in range(40)})
        assert many.status_code == 431

    def test_a_body_over_the_limit_is_refused_and_a_batch_of_that_size_is_not(self, http):
        body = json.dumps({"model": MODEL, "input": "x" * 17 * 2**20})
        assert http.post("/v1/embeddings", content=body).status_code == 413
        line = json.dumps({"text": "x" * ONE_TEXT, "model": MODEL}).encode() + b"\n"
        batch = http.post(
            "/v1/embeddings/batches",
            content=(line for _ in range(100)),
            headers={"content-type": "application/x-ndjson"},
        )
        assert batch.status_code == 202, batch.text
        http.post(f"/v1/runs/{batch.json()['run_id']}/cancel")

    def test_a_caller_without_a_key_is_refused_whoever_it_claims_to_be(self, stack):
        for headers in ({}, {"host": "localhost"}, {"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}):
            answer = httpx.get(f"{stack.url}/v1/models", headers=headers, verify=stack.tls)
            assert answer.status_code == 401, headers

    def test_an_api_without_keys_does_not_start_behind_it(self, stack):
        keyless = ("-e", "CITADEL_API__KEYS=[]", "-e", "CITADEL_API__KEYLESS=loopback")
        with pytest.raises(CommandFailed, match="with no API keys only loopback is served"):
            stack.compose("run", "--rm", "--no-deps", "-T", *keyless, "api")

    def test_connections_of_one_client_are_limited(self, stack):
        """They are those with a request; its headers are complete, and its body never is."""
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
            f"authorization: Bearer {stack.key}\r\ncontent-length: 9\r\n\r\n{{"
        )
        with ExitStack() as opened:
            for _ in range(MOST + 1):
                plain = socket.create_connection(("localhost", stack.port), LONG)
                connection = opened.enter_context(stack.tls.wrap_socket(plain, server_hostname="localhost"))
                connection.sendall(head.encode())
            assert b" 429 " in connection.recv(100)
