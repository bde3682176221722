"""Clients of Azure OpenAI: `AzureOpenAI`, and LangChain's `AzureOpenAIEmbeddings`."""

import numpy as np
import openai
import pytest
from langchain_openai import AzureOpenAIEmbeddings

from tests.clients.support import LOCAL_MODEL, MODEL, TEXTS, Citadel, documented


@pytest.fixture
def client(citadel: Citadel) -> openai.AzureOpenAI:
    return documented("Azure OpenAI", citadel.main.removesuffix("/v1"), citadel.key)["client"]


def test_the_model_is_the_deployment(client: openai.AzureOpenAI, citadel: Citadel) -> None:
    answer = client.embeddings.create(model=LOCAL_MODEL, input=TEXTS)
    found = np.float32([item.embedding for item in answer.data])
    np.testing.assert_array_equal(found, citadel.vectors(TEXTS, LOCAL_MODEL))


def test_models_are_listed_and_retrieved(client: openai.AzureOpenAI) -> None:
    assert [client.models.retrieve(model.id).id for model in client.models.list()].count(MODEL) == 1


@pytest.mark.parametrize(
    ("key", "model", "expected"),
    [("wrong", MODEL, openai.AuthenticationError), ("", "unknown", openai.NotFoundError)],
)
def test_errors_have_their_class(citadel: Citadel, key: str, model: str, expected: type[Exception]) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=citadel.main.removesuffix("/v1"), api_version="2024-10-21", api_key=key or citadel.key
    )
    with pytest.raises(expected):
        client.embeddings.create(model=model, input="a")


def test_langchain_names_the_deployment_beside_its_default_model(citadel: Citadel) -> None:
    embeddings = AzureOpenAIEmbeddings(
        azure_endpoint=citadel.main.removesuffix("/v1"),
        azure_deployment=LOCAL_MODEL,
        api_version="2024-10-21",
        api_key=citadel.key,
        check_embedding_ctx_length=False,
    )
    np.testing.assert_array_equal(np.float32(embeddings.embed_documents(TEXTS)), citadel.vectors(TEXTS, LOCAL_MODEL))
