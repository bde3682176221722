"""Arguments become payloads, or errors that name each bad field once."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from citadel_common.errors import InvalidInput
from citadel_common.validation import bad_fields, parse_payload
from citadel_contracts.embeddings import BatchGenerateEmbeddings, GenerateEmbedding, WarmEmbeddingCache

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MODELS = [GenerateEmbedding, BatchGenerateEmbeddings, WarmEmbeddingCache]


@given(st.sampled_from(MODELS), st.lists(anything, max_size=9), st.dictionaries(st.text(max_size=12), anything))
def test_any_arguments_are_a_payload_or_a_clear_error(model, args, kwargs):
    with contextlib.suppress(InvalidInput):
        assert isinstance(parse_payload(model, args, kwargs), model)


@given(st.integers(0, 10))
def test_positional_arguments_take_the_fields_in_order(count):
    values = ["text", "model", {"a": 1}, False, 8, "query", "base64", "start", 7, [[1]]]
    payload = parse_payload(
        GenerateEmbedding, ["other", *values[1:count]] if count else [], {} if count else {"text": "other"}
    )
    assert payload.text == "other"
    for name, value in list(zip(GenerateEmbedding.model_fields, values, strict=True))[1:count]:
        assert getattr(payload, name) == value


def errors_of(model, **kwargs):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(kwargs)
    return bad_fields(caught.value)


def test_of_a_union_the_error_that_came_furthest_counts():
    [bad] = errors_of(GenerateEmbedding, text=["a", 5])
    assert (bad.name, bad.pointer) == ("text[1]", "/text/1")
    [bad] = errors_of(GenerateEmbedding, text=5)
    assert str(bad) == "text: input should be a valid string, or input should be a valid list"


def test_pointers_are_escaped():
    bad = errors_of(GenerateEmbedding, **{"text": "a", "a/b~c": 1})
    assert [field.pointer for field in bad] == ["/a~1b~0c"]


def test_many_bad_fields_are_cut_short():
    with pytest.raises(InvalidInput, match=r"and 15 more$"):
        parse_payload(BatchGenerateEmbeddings, [[{"text": 5}] * 20], {})
