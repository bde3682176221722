"""Token ids become texts only if they are the model's own, and texts are cut to a number of tokens."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable, InvalidInput
from citadel_embeddings.backends.base import NoTokenizer
from citadel_embeddings.tokens import ModelTokens

T = TypeVar("T")
SENTENCE = "the quick brown fox jumps over the lazy dog"
CL100K = {
    "Hello world": [9906, 1917],
    "A man is eating food.": [32, 893, 374, 12459, 3691, 13],
    "The quick brown fox jumps over the lazy dog.": [791, 4062, 14198, 39935, 35308, 927, 279, 16053, 5679, 13],
    "machine learning machine learning machine": [33156, 6975, 5780, 6975, 5780],
}
"""Ids of OpenAI's vocabulary, which LangChain sends unless it is told not to."""


class InProcess:
    """The model's tokenizer, without the model."""

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self.calls = 0

    async def encode(self, text: str, *, special: bool, timeout: float) -> list[int]:
        assert timeout > 0
        self.calls += 1
        return list(self._pieces.encode(text, special=special))

    async def decode(self, ids: Any, *, timeout: float) -> str:
        assert timeout > 0
        return str(self._pieces.decode(ids))


class Failing:
    """A tokenizer whose calls end with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def encode(self, *_: object, **__: object) -> list[int]:
        raise self._error

    async def decode(self, *_: object, **__: object) -> str:
        raise self._error


def run(call: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(call)


@pytest.fixture
def pieces(model):
    return model.pieces


@pytest.fixture
def tokens(pieces):
    return ModelTokens(model="all-minilm", tokenizers=[InProcess(pieces)], deadline=Deadline.after(60))


def test_ids_of_the_model_are_its_text_with_and_without_special_ones(tokens, pieces):
    for special in (False, True):
        assert run(tokens.texts_of([pieces.encode(SENTENCE, special=special)], "")) == [SENTENCE]
    arrays = [pieces.encode(text, special=True) for text in ("hello", "", "naive café, 3.5 %")]
    assert run(tokens.texts_of(arrays, ["", "", ""])) == ["hello", "", "naive cafe, 3. 5 %"]


def test_the_text_of_ids_has_the_same_ids(tokens, pieces):
    ids = pieces.encode("Don't re-tokenize: U.S. 1,000.50 naïve 東京 😀 “quotes” x_y@z.org", special=True)
    [text] = run(tokens.texts_of([ids], ""))
    assert pieces.encode(text, special=True) == ids


@pytest.mark.parametrize("ids", CL100K.values(), ids=CL100K)
def test_ids_of_another_vocabulary_are_refused_with_the_way_out(tokens, ids):
    with pytest.raises(InvalidInput, match="check_embedding_ctx_length=False"):
        run(tokens.texts_of([ids], ""))


def test_the_array_that_is_not_the_models_is_named(tokens, pieces):
    good = pieces.encode(SENTENCE, special=True)
    for bad in ([30522], [2**31 - 1], [11, 279], good[:3] + good, [101, 2006, 0, 102]):
        with pytest.raises(InvalidInput) as caught:
            run(tokens.texts_of([good, bad], ["", ""]))
        assert (caught.value.field, caught.value.index) == ("text", 1)


def test_a_text_is_cut_at_its_end_or_its_start_to_just_as_many_tokens(tokens, pieces):
    long = f"{SENTENCE}. " * 40
    for start in (False, True):
        for most in (3, 4, 10, 100, 254):
            found, cut = run(tokens.cut([long, "short"], "", most, start=start))
            assert cut == {0}
            assert found[1] == "short"
            assert long.endswith(found[0]) if start else long.startswith(found[0])
            assert len(pieces.encode(found[0], special=True)) == most


def test_the_prefix_counts_and_a_text_that_fits_is_not_touched(tokens, pieces):
    found, cut = run(tokens.cut([SENTENCE], "query: ", 8, start=False))
    assert cut == {0}
    assert len(pieces.encode(f"query: {found[0]}", special=True)) == 8
    exact = len(pieces.encode(SENTENCE, special=True))
    assert run(tokens.cut([SENTENCE, "", "日本"], "", exact, start=True)) == ([SENTENCE, "", "日本"], frozenset())


def test_a_limit_without_room_for_a_text_is_refused(tokens):
    with pytest.raises(InvalidInput, match="truncate_prompt_tokens: leaves no room"):
        run(tokens.cut([SENTENCE], "", 2, start=False))


def test_cutting_takes_few_calls(pieces):
    tokenizer = InProcess(pieces)
    tokens = ModelTokens(model="m", tokenizers=[tokenizer], deadline=Deadline.after(60))
    run(tokens.cut([f"{SENTENCE}. " * 2000], "", 100, start=False))
    assert tokenizer.calls < 25


def test_another_server_is_asked_if_one_cannot_tokenize(pieces):
    servers = [Failing(NoTokenizer()), Failing(BackendUnavailable()), InProcess(pieces)]
    tokens = ModelTokens(model="m", tokenizers=servers, deadline=Deadline.after(60))
    assert run(tokens.texts_of([pieces.encode(SENTENCE, special=True)], "")) == [SENTENCE]
    away = ModelTokens(model="m", tokenizers=servers[:2], deadline=Deadline.after(60))
    with pytest.raises(BackendUnavailable):
        run(away.texts_of([[101, 102]], ""))


@pytest.mark.parametrize("servers", [[], [Failing(NoTokenizer())]])
def test_without_a_tokenizer_ids_and_limits_are_refused_with_the_way_out(servers):
    tokens = ModelTokens(model="m", tokenizers=servers, deadline=Deadline.after(60))
    with pytest.raises(InvalidInput, match="check_embedding_ctx_length=False"):
        run(tokens.texts_of([[101, 102]], ""))
    for start, field in ((False, "truncate_prompt_tokens"), (True, "truncate")):
        with pytest.raises(InvalidInput, match=f"{field}: cannot be kept: the tokenizer of 'm' is not at hand"):
            run(tokens.cut([SENTENCE], "", 5, start=start))
