"""Chroma's `OpenAIEmbeddingFunction`."""

import numpy as np
import pytest
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

from tests.clients.support import LOCAL_MODEL, MODEL, OPENAI_ERRORS, TEXTS, Call, Citadel, documented

pytestmark = pytest.mark.filterwarnings("ignore:Direct api_key configuration:DeprecationWarning")


@pytest.fixture
def embed(citadel: Citadel, monkeypatch: pytest.MonkeyPatch) -> OpenAIEmbeddingFunction:
    monkeypatch.setenv("CHROMA_OPENAI_API_KEY", citadel.key)
    return documented("Chroma", citadel.main, citadel.key)["embedding_function"]


def test_documents_are_embedded(embed: OpenAIEmbeddingFunction, citadel: Citadel) -> None:
    np.testing.assert_array_equal(embed(TEXTS), citadel.vectors(TEXTS, LOCAL_MODEL))
    np.testing.assert_array_equal(embed.embed_query(TEXTS[:1]), citadel.vectors(TEXTS[:1], LOCAL_MODEL))


def test_a_stored_configuration_connects_again(embed: OpenAIEmbeddingFunction, citadel: Citadel) -> None:
    """Chroma keeps the function's configuration with a collection and builds it anew."""
    again = OpenAIEmbeddingFunction.build_from_config(embed.get_config())
    np.testing.assert_array_equal(again(TEXTS), citadel.vectors(TEXTS, LOCAL_MODEL))


def test_a_list_of_thousands_keeps_its_order(citadel: Citadel) -> None:
    texts = [f"text {number}" for number in range(1500)]
    found = OpenAIEmbeddingFunction(api_key=citadel.key, api_base=citadel.main, model_name=MODEL)(texts)
    np.testing.assert_array_equal([found[0], found[-1]], citadel.vectors([texts[0], texts[-1]]))


def test_a_query_gets_its_prefix_by_a_header(citadel: Citadel) -> None:
    headers = {"Citadel-Input-Type": "query"}
    embed = OpenAIEmbeddingFunction(
        api_key=citadel.key, api_base=citadel.main, model_name=MODEL, default_headers=headers
    )
    np.testing.assert_array_equal(embed(["who"]), citadel.vectors(["search_query: who"]))


@pytest.mark.parametrize("fault", OPENAI_ERRORS, indirect=True)
def test_each_error_has_openais_class(fault: Call) -> None:
    embed = OpenAIEmbeddingFunction(api_key=fault.key, api_base=fault.url, model_name=fault.model)
    # the function has no options of its own for these
    embed.client = embed.client.with_options(max_retries=0, timeout=fault.timeout)
    expected, code = OPENAI_ERRORS[fault.name]
    with pytest.raises(expected) as caught:
        embed(list(fault.texts))
    assert caught.value.code == code
