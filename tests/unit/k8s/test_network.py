"""The network policies allow the connections that ARCHITECTURE.md lists, and no others."""

import re
from functools import cache

import pytest

from tests.unit.k8s.network import CLUSTER, OUTSIDE, Policies
from tests.unit.k8s.rendering import ROOT, VALUES, Rendered, render, rendered, values_of

ROW = re.compile(r"^\| ([\w ]+) \| (\d+) \| ([\w, ]+) \|$", re.MULTILINE)
COMPONENTS = {"backends": "ollama"}
ELSEWHERE = {"llm": 8000, "otlp": 4318}
DNS = 53


def documented() -> set[tuple[str, str, int]]:
    """Return caller, server and port of the table."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text[text.index("### Who talks to whom") :]
    return {
        (caller, server, int(port))
        for servers, port, callers in ROW.findall(section)
        for server in (_WATCHED if servers == "workers and beat" else [servers])
        for caller in callers.split(", ")
    }


_WATCHED = ["embeddings", "orchestration", "monitoring", "maintenance", "beat"]


@cache
def whole() -> Rendered:
    """Return a rendering with bundled stores, an external LLM and an external collector."""
    return render(
        {
            "llm": {"endpoints": {"main": {"url": f"http://llm:{ELSEWHERE['llm']}/v1", "model": "m"}}},
            "telemetry": {"otlp": {"endpoint": f"http://collector:{ELSEWHERE['otlp']}"}},
        }
    )


def test_processes_reach_the_servers_that_are_documented_and_no_others() -> None:
    policies = Policies(whole())
    names = {component: target for target, component in COMPONENTS.items()}
    inner = {(caller, names.get(server, server), port) for caller, server, port in policies.within()}
    ports = {port: target for target, port in ELSEWHERE.items()}
    outer = {
        (caller, ports[port], port)
        for caller, port in policies.out_of()
        if port not in {DNS, 443} or caller != "ollama"
        if port != DNS
    }
    assert inner | outer == {arrow for arrow in documented() if arrow[0] not in {"clients", "scraper"}}


def test_outsiders_reach_only_documented_ports() -> None:
    outsiders = {OUTSIDE: "clients", CLUSTER: "scraper"}
    allowed = {(outsiders[who], server, port) for who, server, port in Policies(whole()).into()}
    listed = {arrow for arrow in documented() if arrow[0] in {"clients", "scraper"}}
    # With no list of clients, the API's port is open to all, scrapers included.
    assert allowed == listed - {("scraper", "api", 8080)}


def test_everybody_may_ask_for_names_and_only_a_bundled_ollama_fetches() -> None:
    out = Policies(rendered("default")).out_of()
    components = {name for name, _ in out}
    assert {(name, DNS) for name in components} <= out
    assert {name for name, port in out if port == 443} == {"ollama"}
    assert components == {name for name, _ in rendered("default").pods()} - {"broker", "cache", "postgres", "qdrant"}


def test_an_ollama_that_pulls_no_model_reaches_nothing_outside() -> None:
    assert "ollama" not in {name for name, _ in Policies(rendered("offline")).out_of()}


def test_ports_of_external_servers_are_those_of_their_urls() -> None:
    out = Policies(rendered("external")).out_of()
    assert {port for name, port in out if name == "orchestration"} == {DNS, 6380, 6379, 5433, 5434, 6333, 8000}
    assert {port for name, port in out if name == "embeddings"} == {DNS, 6380, 6379, 11434, 443}
    assert {port for name, port in out if name == "migrate"} == {DNS, 5433, 5434}


def test_each_sentinel_can_be_reached() -> None:
    broker = {
        "url": "sentinel://one:26379;sentinel://two:26380",
        "sentinelMaster": "main",
        "bundled": {"enabled": False},
    }
    out = Policies(render({"broker": broker})).out_of()
    assert {port for name, port in out if name == "beat"} == {DNS, 26379, 26380}


def test_an_llm_endpoint_may_be_the_bundled_ollama() -> None:
    endpoint = {"url": "http://citadel-ollama:11434", "style": "ollama", "model": "llama3.2"}
    policies = Policies(render({"llm": {"endpoints": {"here": endpoint}}}))
    assert ("orchestration", "ollama", 11434) in policies.within()
    assert ("orchestration", 11434) not in policies.out_of()


def test_listed_peers_replace_everybody() -> None:
    into = Policies(rendered("observability")).into()
    assert {who for who, name, _ in into if name == "api"} == {"web", "monitoring"}
    assert {who for who, name, _ in into if name == "embeddings"} == {"monitoring"}


def test_only_keda_reaches_a_bundled_broker_from_outside() -> None:
    stores = {"broker", "cache", "postgres", "qdrant", "ollama"}
    assert {arrow for arrow in Policies(rendered("keda")).into() if arrow[1] in stores} == {("keda", "broker", 6379)}
    assert not {arrow for arrow in Policies(rendered("default")).into() if arrow[1] in stores}


@pytest.mark.parametrize(
    "name", [name for name in VALUES if values_of(name).get("networkPolicies") != {"enabled": False}]
)
def test_no_pod_is_left_open(name: str) -> None:
    policies = Policies(rendered(name))
    assert policies.within() is not None
    assert policies.out_of()
