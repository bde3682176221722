"""Token ids on a real llama-server, whose model is all-MiniLM-L6-v2."""

import asyncio
from typing import Any

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import InvalidInput
from citadel_common.settings.embeddings import BackendSettings
from citadel_embeddings.backends.openai import OpenAIBackend
from citadel_embeddings.tokens import ModelTokens
from tests.support import servers

HELLO = [101, 7592, 2088, 1010, 15743, 7668, 102]
LONG = "The quick brown fox jumps over the lazy dog. " * 30


@pytest.fixture
def tokens_of() -> Any:
    """Return a function that runs a coroutine with the server's tokenizer."""

    def run(work: Any) -> Any:
        async def with_tokens(server: servers.Server) -> Any:
            backend = OpenAIBackend(BackendSettings(kind="openai", urls=[server.url]))
            try:
                tokenizer = backend.tokenizer(server.url, server.model)
                tokens = ModelTokens(model=server.model, tokenizers=[tokenizer], deadline=Deadline.after(60))
                return await work(tokens)
            finally:
                await backend.aclose()

        with servers.openai_real() as server:
            return asyncio.run(with_tokens(server))

    return run


@pytest.mark.real
def test_ids_become_their_text(tokens_of: Any) -> None:
    assert tokens_of(lambda tokens: tokens.texts_of([HELLO], "")) == ["hello world , naive cafe"]


@pytest.mark.real
@pytest.mark.parametrize("ids", [[101, 30522, 102], [9906, 1917], [791, 4062, 14198, 39935, 35308, 927, 279, 16053]])
def test_ids_of_another_vocabulary_are_refused(tokens_of: Any, ids: list[int]) -> None:
    with pytest.raises(InvalidInput, match="check_embedding_ctx_length=False"):
        tokens_of(lambda tokens: tokens.texts_of([ids], ""))


@pytest.mark.real
@pytest.mark.parametrize("start", [False, True])
def test_a_text_is_cut_by_the_servers_tokens(tokens_of: Any, start: bool) -> None:
    found, cut = tokens_of(lambda tokens: tokens.cut([LONG, "short"], "", 10, start=start))
    assert (found[1], cut) == ("short", {0})
    assert LONG.endswith(found[0]) if start else LONG.startswith(found[0])
    assert tokens_of(lambda tokens: tokens.cut([found[0]], "", 10, start=start)) == ([found[0]], frozenset())
