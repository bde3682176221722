"""Haystack: `OpenAITextEmbedder` for queries, `OpenAIDocumentEmbedder` for documents."""

import asyncio
from typing import Any

import numpy as np
import pytest
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

from tests.clients.support import LOCAL_MODEL, MODEL, OPENAI_ERRORS, TEXTS, Call, Citadel, documented


@pytest.fixture
def embedders(citadel: Citadel) -> dict[str, Any]:
    return documented("Haystack", citadel.main, citadel.key)


def options(call: Call) -> dict[str, Any]:
    connection = {"api_base_url": call.url, "api_key": Secret.from_token(call.key), "model": call.model}
    return connection | {"timeout": call.timeout, "max_retries": 0}


def test_queries_are_embedded(embedders: dict[str, Any], citadel: Citadel) -> None:
    plain = citadel.vectors(TEXTS[:1], LOCAL_MODEL)[0]
    embedder = embedders["text_embedder"]
    np.testing.assert_array_equal(np.float32(embedder.run(TEXTS[0])["embedding"]), plain)
    np.testing.assert_array_equal(np.float32(asyncio.run(embedder.run_async(TEXTS[0]))["embedding"]), plain)


def test_documents_are_embedded_in_batches(embedders: dict[str, Any], citadel: Citadel) -> None:
    texts = [f"document {number}" for number in range(70)]
    plain = citadel.vectors(texts, LOCAL_MODEL)
    embedder, documents = embedders["document_embedder"], [Document(content=text) for text in texts]
    for found in (embedder.run(documents), asyncio.run(embedder.run_async(documents))):
        np.testing.assert_array_equal(np.float32([each.embedding for each in found["documents"]]), plain)


def test_a_prefix_and_dimensions_are_the_embedders_own_options(citadel: Citadel) -> None:
    call = Call(url=citadel.main, key=citadel.key)
    embedder = OpenAITextEmbedder(**options(call), prefix="search_query: ", dimensions=64)
    assert len(embedder.run("who")["embedding"]) == 64


def test_a_query_gets_its_prefix_by_a_header(citadel: Citadel) -> None:
    headers = {"headers": {"Citadel-Input-Type": "query"}}
    embedder = OpenAITextEmbedder(**options(Call(url=citadel.main, key=citadel.key)), http_client_kwargs=headers)
    found = np.float32([embedder.run("who")["embedding"]])
    np.testing.assert_array_equal(found, citadel.vectors(["search_query: who"]))


@pytest.mark.parametrize("fault", OPENAI_ERRORS, indirect=True)
def test_each_error_has_openais_class(fault: Call) -> None:
    expected, code = OPENAI_ERRORS[fault.name]
    with pytest.raises(expected) as caught:
        OpenAITextEmbedder(**options(fault)).run(fault.texts[-1])
    assert caught.value.code == code


@pytest.mark.parametrize("fault", ["wrong_key", "too_long", "unavailable"], indirect=True)
def test_documents_that_fail_raise_if_that_is_wanted(fault: Call) -> None:
    documents = [Document(content=text) for text in fault.texts]
    with pytest.raises(OPENAI_ERRORS[fault.name][0]):
        OpenAIDocumentEmbedder(**options(fault), progress_bar=False, raise_on_failure=True).run(documents)


def test_documents_that_fail_come_back_without_a_vector(citadel: Citadel) -> None:
    """Haystack's default: it logs the error and goes on."""
    call = Call(url=citadel.main, key="wrong", model=MODEL)
    (document,) = OpenAIDocumentEmbedder(**options(call)).run([Document(content="a")])["documents"]
    assert document.embedding is None
