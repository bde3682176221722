"""The `openai` package, blocking and async, with its defaults."""

import asyncio
from typing import Any

import numpy as np
import openai
import pytest

from tests.clients.support import LOCAL_MODEL, MODEL, OPENAI_ERRORS, TEXTS, Call, Citadel, documented

each_fault = pytest.mark.parametrize("fault", OPENAI_ERRORS, indirect=True)


@pytest.fixture
def client(citadel: Citadel) -> openai.OpenAI:
    return documented("openai", citadel.main, citadel.key)["client"]


def failing(call: Call) -> openai.OpenAI:
    return openai.OpenAI(base_url=call.url, api_key=call.key, timeout=call.timeout, max_retries=0)


def vectors_of(answer: Any) -> Any:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.float32([item.embedding for item in answer.data])


def test_the_snippet_embeds(citadel: Citadel) -> None:
    names = documented("openai", citadel.main, citadel.key)
    np.testing.assert_allclose(vectors_of(names["answer"]), citadel.vectors(["first text", "second text"], LOCAL_MODEL))


@pytest.mark.parametrize("model", [MODEL, LOCAL_MODEL])
def test_vectors_are_those_of_a_plain_request(client: openai.OpenAI, citadel: Citadel, model: str) -> None:
    plain = citadel.vectors(TEXTS, model)
    np.testing.assert_array_equal(vectors_of(client.embeddings.create(input=TEXTS, model=model)), plain)
    np.testing.assert_array_equal(vectors_of(client.embeddings.create(input=TEXTS[0], model=model)), plain[:1])


def test_floats_and_base64_are_the_same_vectors(client: openai.OpenAI) -> None:
    encoded = client.embeddings.create(input=TEXTS, model=MODEL, encoding_format="base64")
    floats = client.embeddings.create(input=TEXTS, model=MODEL, encoding_format="float")
    assert isinstance(encoded.data[0].embedding, str)
    assert len(floats.data[0].embedding) == 768


def test_a_query_gets_its_prefix_by_an_extra_field(client: openai.OpenAI, citadel: Citadel) -> None:
    query = client.embeddings.create(input="who", model=MODEL, extra_body={"input_type": "query"})
    np.testing.assert_array_equal(vectors_of(query), citadel.vectors("search_query: who"))


@pytest.mark.parametrize(
    ("spelling", "body", "text"),
    [
        ("query", {}, "search_query: who"),
        ("Passage", {}, "search_document: who"),
        ("query", {"input_type": "document"}, "search_document: who"),
        ("query", {"task": "search_document"}, "search_document: who"),
        ("", {}, "who"),
    ],
)
def test_a_header_says_what_the_texts_are_unless_the_body_does(
    client: openai.OpenAI, citadel: Citadel, spelling: str, body: dict[str, str], text: str
) -> None:
    headers = {"Citadel-Input-Type": spelling}
    answer = client.embeddings.create(input="who", model=MODEL, extra_headers=headers, extra_body=body)
    np.testing.assert_array_equal(vectors_of(answer), citadel.vectors([text]))


def test_a_vector_is_shortened_on_request(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(input="short", model=MODEL, dimensions=64).data[0].embedding) == 64


def test_a_list_of_thousands_keeps_its_order(client: openai.OpenAI, citadel: Citadel) -> None:
    texts = [f"text {number}" for number in range(2000)]
    found = vectors_of(client.embeddings.create(input=texts, model=MODEL))
    np.testing.assert_array_equal([found[0], found[-1]], citadel.vectors([texts[0], texts[-1]]))


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    listed = list(client.models.list())
    assert {model.id for model in listed} >= {MODEL, LOCAL_MODEL}
    for model in listed:
        assert client.models.retrieve(model.id) == model


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("library/unknown:latest")
    assert caught.value.code == "model_not_found"


def test_headers_of_the_client_are_accepted(client: openai.OpenAI) -> None:
    headers = {"OpenAI-Organization": "org-1", "OpenAI-Project": "proj-1", "X-Stainless-Custom": "1", "User-Agent": ""}
    assert client.with_options(default_headers=headers).embeddings.create(input="a", model=MODEL, user="u").data


@pytest.mark.parametrize("key", ["none", "sk-dummy"])
def test_a_server_without_keys_takes_any(citadel: Citadel, key: str) -> None:
    client = openai.OpenAI(base_url=citadel.keyless, api_key=key)
    assert client.embeddings.create(input="a", model=MODEL).data


@pytest.mark.parametrize("spelling", ["{}/v1", "{}/v1/", "{}", "{}/"])
def test_the_base_url_may_lack_v1_and_end_in_a_slash(citadel: Citadel, spelling: str) -> None:
    url = spelling.format(citadel.main.removesuffix("/v1"))
    client = openai.OpenAI(base_url=url, api_key=citadel.key)
    assert client.embeddings.create(input="a", model=MODEL).data
    assert client.models.list().data


def test_the_scheme_of_the_key_may_be_in_lower_case(citadel: Citadel) -> None:
    headers = {"Authorization": f"bearer {citadel.key}"}
    client = openai.OpenAI(base_url=citadel.main, api_key="ignored", default_headers=headers)
    assert client.models.list().data


@each_fault
def test_each_error_has_its_class_and_code(fault: Call) -> None:
    expected, code = OPENAI_ERRORS[fault.name]
    with pytest.raises(expected) as caught:
        failing(fault).embeddings.create(input=list(fault.texts), model=fault.model)
    assert caught.value.code == code
    if code is not None:
        assert caught.value.request_id
        assert caught.value.body["trace_id"]


@each_fault
def test_each_error_has_its_class_when_awaited(fault: Call) -> None:
    async def call() -> None:
        options = {"base_url": fault.url, "api_key": fault.key, "timeout": fault.timeout, "max_retries": 0}
        async with openai.AsyncOpenAI(**options) as client:
            await client.embeddings.create(input=list(fault.texts), model=fault.model)

    with pytest.raises(OPENAI_ERRORS[fault.name][0]):
        asyncio.run(call())


def test_many_awaited_calls_get_their_own_vectors(citadel: Citadel) -> None:
    texts = [f"awaited {number}" for number in range(60)]

    async def embed() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=citadel.main, api_key=citadel.key) as client:
            return await asyncio.gather(*(client.embeddings.create(input=text, model=MODEL) for text in texts))

    found = np.float32([answer.data[0].embedding for answer in asyncio.run(embed())])
    np.testing.assert_array_equal(found, citadel.vectors(texts))


class TestRetries:
    """The client's own retries; its sleep is recorded instead of slept."""

    @pytest.fixture
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        waits: list[float] = []
        monkeypatch.setattr("openai._base_client.time.sleep", waits.append)
        return waits

    @pytest.mark.parametrize("fault", ["rate_limited"], indirect=True)
    def test_it_waits_as_long_as_the_server_says(self, fault: Call, slept: list[float]) -> None:
        client = openai.OpenAI(base_url=fault.url, api_key=fault.key)
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(input="a", model=MODEL)
        last = float(caught.value.response.headers["retry-after"])
        assert len(slept) == 2
        assert all(last <= wait <= 60 for wait in slept)

    @pytest.mark.parametrize("fault", ["unavailable"], indirect=True)
    def test_a_retry_succeeds_once_the_backend_is_back(
        self, fault: Call, citadel: Citadel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            citadel.recover()

        monkeypatch.setattr("openai._base_client.time.sleep", sleep)
        client = openai.OpenAI(base_url=fault.url, api_key=fault.key)
        assert client.embeddings.create(input=list(fault.texts), model=MODEL).data
        assert waits == [5.0]

    @pytest.mark.parametrize("fault", ["wrong_key", "unknown_model", "too_long", "body_too_large"], indirect=True)
    def test_a_mistake_of_the_caller_is_not_repeated(self, fault: Call, slept: list[float]) -> None:
        client = openai.OpenAI(base_url=fault.url, api_key=fault.key)
        with pytest.raises(openai.APIStatusError):
            client.embeddings.create(input=list(fault.texts), model=fault.model)
        assert slept == []

    def test_a_bad_vector_is_not_asked_for_again(self, citadel: Citadel, slept: list[float]) -> None:
        """The client repeats every 5xx unless the server says that it is in vain."""
        client = openai.OpenAI(base_url=citadel.main, api_key=citadel.key)
        with pytest.raises(openai.InternalServerError) as caught:
            client.embeddings.create(input="[[zero]]", model=MODEL)
        assert (caught.value.code, slept) == ("bad_vector", [])
