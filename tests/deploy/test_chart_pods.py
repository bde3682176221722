"""The chart's pods run: rendered as for a cluster, started on Docker with the same restrictions, secrets and probes."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.engine import BUILD_SECONDS, docker, program, require_engine
from tests.deploy.pods import Pods
from tests.deploy.stack import EMBEDDING_MODEL, build, images, model_files, require_images
from tests.support.polling import eventually
from tests.unit.k8s.rendering import render, values_of

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(BUILD_SECONDS)]
STORES = ("broker", "cache", "postgres")
SERVERS = ("qdrant", "ollama")
OWN = ("api", "embeddings", "orchestration", "monitoring", "maintenance", "beat", "exporter")
PATIENCE = 300.0


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """Run a rendering with all that is bundled and no Internet: the stores and servers, then Citadel's processes."""
    require_engine()
    tag = images()["CITADEL_TAG"]
    rendered = render(values_of("offline") | {"image": {"tag": tag}})
    require_images(*(rendered.container(server)["image"] for server in (*STORES, *SERVERS)))
    build(tag)
    claims = {"models": model_files()}
    made = Pods(rendered, f"citadel-chart-{os.getpid()}", tmp_path_factory.mktemp("pods"), claims)
    try:
        for server in SERVERS:
            made.start(server)
        for store in STORES:
            made.start(store, user=_user(store))
        for store in STORES:
            eventually(lambda store=store: made.probe(store, "startup"), PATIENCE)
        made.run_to_its_end("migrate")
        for process in OWN:
            made.start(process)
        yield made
    finally:
        made.remove()


def _user(store: str) -> str | None:
    """PostgreSQL wants a user that the image knows by name, and images differ in its number."""
    if store != "postgres":
        return None
    image = images()["POSTGRES_IMAGE"]
    ids = [docker("run", "--rm", "--entrypoint", "id", image, option, "postgres").strip() for option in ("-u", "-g")]
    return ":".join(ids)


@pytest.mark.parametrize("component", OWN)
@pytest.mark.parametrize("kind", ["startup", "liveness"])
def test_the_probes_of_every_pod_succeed(pods: Pods, component: str, kind: str) -> None:
    eventually(lambda: pods.probe(component, kind), PATIENCE)


def test_the_api_becomes_ready_with_the_generated_passwords(pods: Pods) -> None:
    eventually(lambda: pods.probe("api", "readiness"), PATIENCE)


def test_the_generated_keys_are_accepted_for_their_scopes(pods: Pods) -> None:
    eventually(lambda: pods.probe("api", "readiness"), PATIENCE)
    metrics, runs = "http://127.0.0.1:8080/metrics", "http://127.0.0.1:8080/v1/dead-letters"

    def may(key: str, url: str) -> bool:
        return pods.succeeds("api", "python", "-c", program("get"), url, f"Bearer {key}")

    assert may(pods.secret["metrics_key"], metrics)
    assert not may(pods.secret["metrics_key"], runs)
    assert may(pods.secret["api_key"], runs)
    assert not may("another", metrics)


def test_texts_are_found_by_meaning_with_a_model_of_a_file(pods: Pods) -> None:
    eventually(lambda: pods.probe("api", "readiness"), PATIENCE)

    def post(path: str, **body: object) -> Any:
        url, key = f"http://127.0.0.1:8080/v1/collections/docs/{path}", f"Bearer {pods.secret['api_key']}"
        arguments = (url, key, json.dumps({"model": EMBEDDING_MODEL} | body))
        return json.loads(pods.exec("api", "python", "-c", program("post"), *arguments))

    texts = ("The cat sleeps on the sofa.", "Interest rates rose in March.")
    post("points", points=[{"id": number, "text": text} for number, text in enumerate(texts)])
    assert [hit["id"] for hit in post("search", text="money", limit=1)["hits"]] == [1]


def test_every_worker_is_at_its_queue(pods: Pods) -> None:
    script = "import sys, urllib.request as r; body = r.urlopen('http://127.0.0.1:9808/metrics', timeout=10).read()"
    for queue in ("embeddings", "orchestration", "monitoring", "maintenance"):
        line = f'citadel_queue_workers{{queue="{queue}"}} 1.0'
        check = f"{script}; sys.exit({line.encode()!r} not in body)"
        eventually(lambda check=check: pods.succeeds("exporter", "python", "-c", check), PATIENCE)


@pytest.mark.parametrize("component", STORES)
def test_bundled_stores_refuse_clients_without_their_password(pods: Pods, component: str) -> None:
    command = (
        ("redis-cli", "-e", "set", "a", "b")
        if component != "postgres"
        else ("psql", "-h", "127.0.0.1", "-w", "-U", "citadel")
    )
    assert not pods.succeeds(component, *command)
    assert pods.probe(component, "liveness")


def test_a_worker_stops_within_its_grace(pods: Pods) -> None:
    docker("stop", "--time", "35", pods.name("maintenance"))
    assert docker("inspect", "--format", "{{.State.ExitCode}}", pods.name("maintenance")).strip() == "0"
