"""LlamaIndex: `OpenAILikeEmbedding`, and `OpenAIEmbedding` told the model's name."""

import asyncio

import numpy as np
import openai
import pytest
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

from tests.clients.support import LOCAL_MODEL, MODEL, OPENAI_ERRORS, Call, Citadel, documented

TEXTS = ["A man is eating food.", "Grüße, 世界 🌍"]
"""Without line breaks, which LlamaIndex takes out."""


@pytest.fixture
def embedding(citadel: Citadel) -> OpenAILikeEmbedding:
    return documented("LlamaIndex", citadel.main, citadel.key)["embedding"]


def test_documents_and_queries_are_embedded(embedding: OpenAILikeEmbedding, citadel: Citadel) -> None:
    plain = citadel.vectors(TEXTS, LOCAL_MODEL)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding_batch(TEXTS)), plain)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding(TEXTS[0])), plain[0])
    np.testing.assert_array_equal(np.float32(embedding.get_query_embedding(TEXTS[1])), plain[1])


def test_a_query_gets_its_prefix_by_an_extra_field(citadel: Citadel) -> None:
    extra = {"extra_body": {"input_type": "query"}}
    embedding = OpenAILikeEmbedding(
        model_name=MODEL, api_base=citadel.main, api_key=citadel.key, additional_kwargs=extra
    )
    np.testing.assert_array_equal(
        np.float32(embedding.get_query_embedding("who")), citadel.vectors(["search_query: who"])[0]
    )


def test_openais_own_class_takes_the_model_by_its_name(citadel: Citadel) -> None:
    embedding = OpenAIEmbedding(model_name=MODEL, api_base=citadel.main, api_key=citadel.key, dimensions=64)
    assert len(embedding.get_text_embedding("short")) == 64


def test_batches_keep_their_order(embedding: OpenAILikeEmbedding, citadel: Citadel) -> None:
    texts = [f"text {number}" for number in range(35)]
    plain = citadel.vectors(texts, LOCAL_MODEL)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding_batch(texts)), plain)
    awaited = asyncio.run(embedding.aget_text_embedding_batch(texts))
    np.testing.assert_array_equal(np.float32(awaited), plain)


@pytest.mark.parametrize("fault", OPENAI_ERRORS, indirect=True)
def test_each_error_has_openais_class(fault: Call) -> None:
    options = {"api_base": fault.url, "api_key": fault.key, "timeout": fault.timeout, "max_retries": 0}
    embedding = OpenAILikeEmbedding(model_name=fault.model, **options)
    expected, code = OPENAI_ERRORS[fault.name]
    with pytest.raises(expected) as caught:
        embedding.get_text_embedding_batch(list(fault.texts))
    assert isinstance(caught.value, openai.APIError)
    assert caught.value.code == code


@pytest.mark.parametrize("fault", ["unavailable"], indirect=True)
def test_a_retry_succeeds_once_the_backend_is_back(
    fault: Call, citadel: Citadel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LlamaIndex has retries of its own around those of the client."""
    monkeypatch.setattr("time.sleep", lambda _: citadel.recover())
    embedding = OpenAILikeEmbedding(model_name=fault.model, api_base=fault.url, api_key=fault.key)
    assert len(embedding.get_text_embedding(fault.texts[0])) == 768
