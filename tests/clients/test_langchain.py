"""LangChain's `OpenAIEmbeddings`: sending texts, and with its default, which sends token ids."""

import asyncio
from pathlib import Path
from typing import Any

import litellm
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from tests.clients.support import LOCAL_MODEL, MODEL, OPENAI_ERRORS, TEXTS, Call, Citadel, documented


@pytest.fixture
def embeddings(citadel: Citadel) -> OpenAIEmbeddings:
    return documented("LangChain", citadel.main, citadel.key)["embeddings"]


def options(call: Call) -> dict[str, Any]:
    connection = {"base_url": call.url, "api_key": call.key, "model": call.model, "timeout": call.timeout}
    return connection | {"check_embedding_ctx_length": False, "max_retries": 0}


def test_documents_and_queries_are_embedded(embeddings: OpenAIEmbeddings, citadel: Citadel) -> None:
    plain = citadel.vectors(TEXTS, LOCAL_MODEL)
    np.testing.assert_array_equal(np.float32(embeddings.embed_documents(TEXTS)), plain)
    np.testing.assert_array_equal(np.float32(embeddings.embed_query(TEXTS[1])), plain[1])

    async def awaited() -> list[list[float]]:
        return [*await embeddings.aembed_documents(TEXTS), await embeddings.aembed_query(TEXTS[1])]

    np.testing.assert_array_equal(np.float32(asyncio.run(awaited())), [*plain, plain[1]])


def test_chunks_keep_their_order(citadel: Citadel) -> None:
    texts = [f"text {number}" for number in range(1500)]
    found = np.float32(OpenAIEmbeddings(**options(Call(url=citadel.main, key=citadel.key))).embed_documents(texts))
    np.testing.assert_array_equal(found[[0, 999, 1000, -1]], citadel.vectors([texts[n] for n in (0, 999, 1000, -1)]))


def test_extra_fields_and_dimensions_pass(citadel: Citadel) -> None:
    call = Call(url=citadel.main, key=citadel.key)
    query = OpenAIEmbeddings(**options(call), model_kwargs={"extra_body": {"input_type": "query"}})
    np.testing.assert_array_equal(np.float32(query.embed_query("who")), citadel.vectors(["search_query: who"])[0])
    assert len(OpenAIEmbeddings(**options(call), dimensions=64).embed_query("short")) == 64


@pytest.mark.parametrize("fault", OPENAI_ERRORS, indirect=True)
def test_each_error_has_openais_class(fault: Call) -> None:
    expected, code = OPENAI_ERRORS[fault.name]
    with pytest.raises(expected) as caught:
        OpenAIEmbeddings(**options(fault)).embed_documents(list(fault.texts))
    assert caught.value.code == code


class TestTokenIds:
    """LangChain's default: ids of OpenAI's own tokenizer, which no model here has."""

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give tiktoken the table that litellm's package carries; it would download the same."""
        tables = Path(litellm.__file__).parent / "litellm_core_utils/tokenizers"
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tables))

    @pytest.mark.parametrize("model", [MODEL, LOCAL_MODEL])
    @pytest.mark.parametrize("text", ["Hello world", "A man is eating food.", "world"])
    def test_they_are_refused_with_the_way_out(self, citadel: Citadel, model: str, text: str) -> None:
        embeddings = OpenAIEmbeddings(base_url=citadel.main, api_key=citadel.key, model=model)
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
            embeddings.embed_query(text)
        assert caught.value.code == "invalid_input"

    def test_documents_are_refused_as_well(self, citadel: Citadel) -> None:
        embeddings = OpenAIEmbeddings(base_url=citadel.main, api_key=citadel.key, model=LOCAL_MODEL)
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            embeddings.embed_documents(["machine learning", "vector database", "write-only transport like write pipe"])

    def test_ids_of_the_models_own_tokenizer_are_its_texts(self, citadel: Citadel) -> None:
        """The client of LangChain's object sends them as it would send OpenAI's."""
        client = OpenAIEmbeddings(base_url=citadel.main, api_key=citadel.key, model=LOCAL_MODEL).client
        ids = [[101, 7592, 2088, 102], [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]]
        answer = client.create(input=ids, model=LOCAL_MODEL)
        found = np.float32([item.embedding for item in answer.data])
        np.testing.assert_array_equal(found, citadel.vectors(["hello world", TEXTS[0].lower()], LOCAL_MODEL))
