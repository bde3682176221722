"""Scopes of the run routes; several API processes; the API without PostgreSQL; the OpenAPI document."""

import hashlib
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.api.servers import Api
from tests.integration.api.stack import BATCHES, MODEL, WAIT, Stack, open_stack
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.web import web

SECRETS = {"reader": "read", "writer": "submit"}
KEYS = [
    {"name": name, "hash": hashlib.sha256(name.encode()).hexdigest(), "scopes": [scope]}
    for name, scope in SECRETS.items()
]
RUN = "/v1/runs/0190a000-0000-7000-8000-000000000000"
READING = ["/v1/runs", RUN, *(f"{RUN}/{part}" for part in ("steps/s", "graph", "events", "results"))]
READING += ["/v1/workflows/schema"]
WRITING = ["/v1/workflows", "/v1/workflows/plan", BATCHES]
WRITING += [f"{RUN}/{action}" for action in ("cancel", "pause", "resume", "retry", "signals/go")]
WRITING += ["/v1/collections/c/points", "/v1/collections/c/search"]
DEFINITION = {"steps": [WAIT]}


@pytest.fixture(scope="module")
def pair(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose API has two processes and needs keys."""
    log = tmp_path_factory.mktemp("api") / "log"
    with open_stack(postgres_server, log, key="reader", API__WORKERS=2, API__KEYS=json.dumps(KEYS)) as stack:
        yield stack


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


@pytest.mark.parametrize("path", READING)
def test_reading_needs_the_scope_read(pair: Stack, path: str) -> None:
    assert web.get(pair.api.url + path).status_code == 401
    assert web.get(pair.api.url + path, headers=bearer("writer")).status_code == 403
    assert web.get(pair.api.url + path, headers=bearer("reader")).status_code in (200, 404)


@pytest.mark.parametrize("path", WRITING)
def test_writing_needs_the_scope_submit(pair: Stack, path: str) -> None:
    for headers, status in (({}, 401), (bearer("nobody"), 401), (bearer("reader"), 403)):
        assert web.post(pair.api.url + path, json=DEFINITION, headers=headers).status_code == status
    assert web.post(pair.api.url + path, json=DEFINITION, headers=bearer("writer")).status_code not in (401, 403)


def test_two_processes_show_the_same_runs_and_wake_each_others_followers(pair: Stack) -> None:
    assert len(pair.api.family) >= 3
    for _ in range(4):  # each request may reach either process
        answer = web.post(f"{pair.api.url}/v1/workflows", json=DEFINITION, headers=bearer("writer"))
        path = answer.headers["location"]
        with web.stream("GET", f"{pair.api.url}{path}/events", headers=bearer("reader"), timeout=30) as events:
            pieces = events.iter_lines()
            assert any("step_waiting" in line for line in pieces)
            web.post(f"{pair.api.url}{path}/signals/go", headers=bearer("writer")).raise_for_status()
            assert "event: end" in list(pieces)
        assert web.get(f"{pair.api.url}{path}", headers=bearer("reader")).json()["status"] == "succeeded"


def test_the_api_starts_and_serves_embeddings_while_postgres_is_away(
    pair: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pair.postgres.stop()
    try:
        api = pair.another_api(tmp_path_factory.mktemp("early") / "log")
        assert embed(api).status_code == 200
    finally:
        pair.postgres.start()
    try:
        answer = eventually(lambda: (found := submit(api)).status_code == 202 and found)
        assert web.get(api.url + answer.headers["location"]).status_code == 200
    finally:
        api.kill_all()


def embed(api: Api) -> httpx.Response:
    return web.post(f"{api.url}/v1/embeddings", json={"input": "without a record", "model": MODEL}, timeout=60)


def submit(api: Api) -> httpx.Response:
    return web.post(f"{api.url}/v1/workflows", json=DEFINITION, timeout=60)


def test_the_openapi_document_has_all_routes_and_every_reference_in_it_leads_somewhere(pair: Stack) -> None:
    document = web.get(f"{pair.api.url}/openapi.json").json()
    assert document["openapi"].startswith("3.")
    templates = set(map(template_of, [*READING, *WRITING]))
    assert templates <= set(document["paths"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            declared = {found["name"] for found in operation.get("parameters", []) if found["in"] == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, (method, path)
    for reference in references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def template_of(path: str) -> str:
    """Return the route that a concrete path belongs to."""
    return (
        path.replace(RUN, "/v1/runs/{run_id}")
        .replace("/steps/s", "/steps/{step_id}")
        .replace("/signals/go", "/signals/{name}")
        .replace("/collections/c/", "/collections/{name}/")
    )


def references(value: object) -> Iterator[str]:
    """Yield all `$ref`s."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            yield from references(member)
