"""Names and URLs of endpoints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_common.errors import InvalidInput
from citadel_common.settings.llm import EndpointSettings, LlmSettings
from citadel_orchestration.llm.client import EndpointDirectory, LlmClients

ENDPOINTS = {
    "gpu": EndpointSettings(url="http://192.168.10.34:8002", model="m"),
    "far": EndpointSettings(url="https://llm.example/team/v1", model="m"),
    "far-small": EndpointSettings(url="https://llm.example/team/v1", model="s"),
}
SETTINGS = LlmSettings(endpoints=ENDPOINTS, default_endpoint="far-small")


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (None, "far-small"),
        ("gpu", "gpu"),
        ("http://192.168.10.34:8002", "gpu"),
        ("http://192.168.10.34:8002/", "gpu"),
        ("HTTP://192.168.10.34:8002/api/generate", "gpu"),
        ("http://192.168.10.34:8002/v1/chat/completions", "gpu"),
        ("https://LLM.example:443/team/v1/chat/completions", "far-small"),
        ("https://llm.example/team", "far-small"),
    ],
)
def test_names_and_urls_find_their_endpoint(wanted, name):
    assert EndpointDirectory(SETTINGS).find(wanted) == name
    assert LlmClients(SETTINGS).endpoint_problem(wanted) is None


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "GPU",
        "http://192.168.10.34",
        "https://192.168.10.34:8002",
        "http://192.168.10.34:8003",
        "http://192.168.10.34:8002/admin",
        "http://192.168.10.34:8002/api/generate/../../admin",
        "http://192.168.10.34:8002@evil.example",
        "http://user@192.168.10.34:8002",
        "http://evil.example\\@192.168.10.34:8002",
        "http://192.168.10.34:8002?x=1",
        "http://192.168.10.34:8002#x",
        "http://192.168.10.34:99999",
        "http://[::1",
        "https://llm.example",
        "https://llm.example/team-b/v1",
        "https://llm.example/v1/chat/completions",
        "file:///etc/passwd",
    ],
)
def test_other_names_and_urls_find_no_endpoint(wanted):
    with pytest.raises(InvalidInput, match="configured: far, far-small, gpu"):
        EndpointDirectory(SETTINGS).find(wanted)


@given(st.text())
def test_no_text_is_an_endpoint_by_chance(text):
    if text not in ENDPOINTS:
        assert LlmClients(SETTINGS).endpoint_problem(text) is not None


AZURE = "https://x.azure.example/openai/deployments/gpt"
GUARDED = LlmSettings(
    endpoints={
        "azure": EndpointSettings(url=f"{AZURE}?api-version=1", model="m"),
        "gemini": EndpointSettings(url="https://g.example/v1beta/openai/", model="m"),
        "ollama": EndpointSettings(url="https://me:geheim@gw.example/ollama/api/chat", style="ollama", model="m"),
    },
)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (AZURE, "azure"),
        (f"{AZURE}/chat/completions?api-version=1", "azure"),
        ("https://g.example/v1beta/openai", "gemini"),
        ("https://g.example/v1beta/openai/chat/completions", "gemini"),
        ("https://gw.example/ollama", "ollama"),
        ("https://GW.example:443/ollama/api/generate", "ollama"),
    ],
)
def test_urls_find_an_endpoint_with_a_path_of_its_own(wanted, name):
    assert EndpointDirectory(GUARDED).find(wanted) == name


@pytest.mark.parametrize(
    "wanted",
    [
        f"{AZURE}?api-version=2",
        "https://g.example/v1beta",
        "https://g.example/v1/chat/completions",
        "https://me:falsch@gw.example/ollama",
    ],
)
def test_urls_of_other_paths_find_none_and_no_credentials_are_repeated(wanted):
    with pytest.raises(InvalidInput, match="configured: azure, gemini, ollama") as refused:
        EndpointDirectory(GUARDED).find(wanted)
    assert "falsch" not in str(refused.value)


def test_a_single_endpoint_is_the_default():
    assert EndpointDirectory(LlmSettings(endpoints={"gpu": ENDPOINTS["gpu"]})).find(None) == "gpu"


def test_two_endpoints_without_a_default_must_be_named():
    problem = LlmClients(LlmSettings(endpoints=ENDPOINTS)).endpoint_problem(None)
    assert problem == "name one of far, far-small, gpu; there is no default"


def test_without_endpoints_the_message_names_the_setting():
    assert "no LLM endpoint is configured" in (LlmClients(LlmSettings()).endpoint_problem("gpu") or "")
