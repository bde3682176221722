"""Sizes of values as JSON: what orjson writes, without writing it."""

import datetime as dt
import uuid

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_common.errors import PayloadTooLarge
from citadel_contracts.json_text import UnusableValue
from citadel_orchestration.definition.sizes import MOST_LEVELS, OPTIONS, SizeLimit, json_size

LIMIT = SizeLimit(bytes=1000, setting="workflows.max_output_bytes")
texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
arrays = st.lists(st.floats(width=32), max_size=20).map(lambda values: np.array(values, dtype="<f4"))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | arrays | st.lists(numbers),
    lambda inner: (
        st.lists(inner) | st.dictionaries(texts | st.integers(-9, 9), inner) | inner.map(lambda part: [part, (part,)])
    ),
    max_leaves=30,
)


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def doubled(levels, leaf):
    """Return a value of `levels` lists in memory whose JSON has the leaf 2**levels times."""
    for _ in range(levels):
        leaf = [leaf, leaf]
    return leaf


@given(values)
def test_the_size_is_that_of_what_orjson_writes(value):
    assert json_size(value) == len(orjson.dumps(value, option=OPTIONS))


@given(values)
def test_an_array_is_never_longer_than_its_bound(value):
    assert json_size(value, exact=False) >= len(orjson.dumps(value, option=OPTIONS))


@given(st.text(min_size=1), st.integers(1, 70_000))
def test_the_size_of_a_long_text_is_exact_with_its_escapes_and_without_surrogates(text, times):
    stored = "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    assert json_size(text.replace("\ud83d", "x") * times) == len(orjson.dumps(stored.replace("\ud83d", "x") * times))


def test_whatever_orjson_writes_has_its_size():
    value = {"at": dt.datetime.now(dt.UTC), "id": uuid.uuid4(), "matrix": np.ones((3, 4)), 1.5: np.int64(3)}
    assert json_size(value) == len(orjson.dumps(value, option=OPTIONS))


def test_a_value_that_shares_its_parts_is_measured_at_once():
    assert json_size(doubled(200, "x" * 90_000)) > 2**200 * 90_000


def test_a_list_of_one_shared_text_is_refused_with_its_size_the_limit_and_the_setting():
    with pytest.raises(PayloadTooLarge) as refused:
        LIMIT.check(["x" * 90_000] * 1000, "the output")
    assert refused.value.message == (
        "the output has 90,003,001 bytes as JSON; the limit (workflows.max_output_bytes) is 1,000"
    )


def test_an_array_over_its_bound_but_within_the_limit_is_taken():
    vector = np.zeros(400, dtype="<f4")
    assert len(orjson.dumps(vector, option=OPTIONS)) > 1000
    assert SizeLimit(bytes=1700, setting="s").check({"v": vector}, "it") > 1600
    with pytest.raises(PayloadTooLarge, match="has 1,607 bytes"):
        SizeLimit(bytes=1606, setting="s").check({"v": vector}, "it")


@pytest.mark.parametrize("shape", [nested, lambda levels: [doubled(100, 1), nested(levels - 1)]])
def test_a_value_of_too_many_levels_is_refused_at_once(shape):
    assert json_size(shape(MOST_LEVELS))
    with pytest.raises(UnusableValue, match="more than 234 levels"):
        json_size(shape(MOST_LEVELS + 1))


def test_a_value_that_holds_itself_ends():
    value = []
    value += [value, value]
    assert json_size(value)
