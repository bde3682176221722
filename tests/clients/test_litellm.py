"""litellm's SDK with the provider `openai/`, blocking and async."""

import asyncio
from collections.abc import Callable
from typing import Any

import litellm
import numpy as np
import pytest

from tests.clients.support import LOCAL_MODEL, MODEL, STRICT_MODEL, TEXTS, Call, Citadel, documented

ERRORS = {
    "wrong_key": (litellm.AuthenticationError, 401),
    # litellm has no class for a 403 or 413 of this provider: the general one carries the status
    "forbidden": (litellm.APIError, 403),
    "unknown_model": (litellm.NotFoundError, 404),
    "empty_text": (litellm.BadRequestError, 400),
    "too_long": (litellm.ContextWindowExceededError, 400),
    "body_too_large": (litellm.APIError, 413),
    "rate_limited": (litellm.RateLimitError, 429),
    "unavailable": (litellm.ServiceUnavailableError, 503),
    "failing": (litellm.BadGatewayError, 502),
    "client_timeout": (litellm.Timeout, 408),
}
each_fault = pytest.mark.parametrize("fault", ERRORS, indirect=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the waits out of the retries, which litellm cannot be told to leave out."""
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)
    monkeypatch.setattr("openai._base_client.anyio.sleep", _no_wait)
    monkeypatch.setattr(litellm, "suppress_debug_info", True)


async def _no_wait(_seconds: float) -> None:
    """Return at once."""


def options(call: Call) -> dict[str, Any]:
    connection = {"api_base": call.url, "api_key": call.key, "timeout": call.timeout}
    return connection | {"model": f"openai/{call.model}", "input": list(call.texts)}


@pytest.fixture
def embed(citadel: Citadel) -> Callable[..., Any]:
    """Embed texts with what is given, and return the vectors."""

    def call(texts: list[str] = TEXTS, model: str = f"openai/{MODEL}", url: str = citadel.main, **given: Any) -> Any:
        answer = litellm.embedding(model=model, input=texts, api_base=url, api_key=citadel.key, **given)
        assert [item["index"] for item in answer.data] == list(range(len(texts)))
        return np.float32([item["embedding"] for item in answer.data])

    return call


def test_the_snippet_embeds(citadel: Citadel) -> None:
    answer = documented("litellm", citadel.main, citadel.key)["answer"]
    found = np.float32([item["embedding"] for item in answer.data])
    np.testing.assert_array_equal(found, citadel.vectors(["first text", "second text"], LOCAL_MODEL))


@pytest.mark.parametrize("model", [MODEL, STRICT_MODEL, LOCAL_MODEL])
def test_vectors_are_those_of_a_plain_request(embed: Callable[..., Any], citadel: Citadel, model: str) -> None:
    np.testing.assert_array_equal(embed(model=f"openai/{model}"), citadel.vectors(TEXTS, model))


@pytest.mark.parametrize("provider", ["openai", "litellm_proxy", "hosted_vllm", "openai_like"])
def test_each_provider_that_speaks_openais_protocol_works(
    embed: Callable[..., Any], citadel: Citadel, provider: str
) -> None:
    np.testing.assert_array_equal(embed(model=f"{provider}/{MODEL}"), citadel.vectors(TEXTS))


@pytest.mark.parametrize("provider", ["openai", "litellm_proxy"])
def test_models_are_listed(citadel: Citadel, provider: str) -> None:
    place = {"custom_llm_provider": provider, "api_base": citadel.main, "api_key": citadel.key}
    found = litellm.get_valid_models(check_provider_endpoint=True, **place)
    assert {name.removeprefix("litellm_proxy/") for name in found} == {MODEL, STRICT_MODEL, LOCAL_MODEL}


def test_a_trailing_slash_does_no_harm(embed: Callable[..., Any], citadel: Citadel) -> None:
    assert len(embed(url=f"{citadel.main}/")) == len(TEXTS)


def test_a_query_gets_its_prefix(embed: Callable[..., Any], citadel: Citadel) -> None:
    np.testing.assert_array_equal(embed(["who"], input_type="query"), citadel.vectors(["search_query: who"]))


def test_what_litellm_passes_on_does_no_harm(embed: Callable[..., Any]) -> None:
    assert len(embed(user="u", metadata={"a": 1}, drop_params=True, extra_headers={"x-custom": "1"})) == len(TEXTS)


def test_dimensions_pass_when_they_are_allowed(embed: Callable[..., Any]) -> None:
    """litellm itself refuses them for models that are not OpenAI's."""
    with pytest.raises(litellm.UnsupportedParamsError):
        embed(dimensions=64)
    assert embed(dimensions=64, allowed_openai_params=["dimensions"]).shape == (len(TEXTS), 64)


def test_the_vectors_of_an_awaited_call_are_the_same(citadel: Citadel) -> None:
    call = Call(url=citadel.main, key=citadel.key, texts=TEXTS)
    answer = asyncio.run(litellm.aembedding(**options(call)))
    np.testing.assert_array_equal(np.float32([item["embedding"] for item in answer.data]), citadel.vectors(TEXTS))


@each_fault
def test_each_error_has_its_class_and_status(fault: Call) -> None:
    expected, status = ERRORS[fault.name]
    with pytest.raises(expected) as caught:
        litellm.embedding(**options(fault))
    assert (type(caught.value), caught.value.status_code) == (expected, status)


@pytest.mark.parametrize("fault", ["wrong_key", "unknown_model", "rate_limited"], indirect=True)
def test_each_error_has_its_class_when_awaited(fault: Call) -> None:
    with pytest.raises(ERRORS[fault.name][0]):
        asyncio.run(litellm.aembedding(**options(fault)))
