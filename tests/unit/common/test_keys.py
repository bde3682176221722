"""Cache keys: equal for equal inputs, different for different ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_common.embeddings.keys import SCHEMA, KeySpace, parse_key

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2).filter(lambda f: f != 0) | texts
inputs = st.fixed_dictionaries(
    {
        "identity": st.sampled_from(["a@1", "a@2", "b@1", "a"]),
        "dimensions": st.sampled_from([None, 1, 64, 768]),
        "prefix": texts,
        "options": st.dictionaries(texts, scalars, max_size=3) | st.none(),
        "text": texts,
    }
)


def key_of(given):
    space = {name: value for name, value in given.items() if name != "text"}
    return KeySpace(**space).key(given["text"])


def exact(given):
    """The inputs, with 1 and True and 1.0 told apart, in any order; no options are empty options."""
    options = {name: (type(value), value) for name, value in (given["options"] or {}).items()}
    return given | {"options": options}


@given(inputs, inputs)
def test_different_inputs_have_different_keys(one, other):
    assert (key_of(one) == key_of(other)) == (exact(one) == exact(other))


@given(inputs, st.data())
def test_each_part_of_a_request_changes_the_key(given, data):
    name = data.draw(st.sampled_from(sorted(given)))
    other = given | {name: data.draw(inputs)[name]}
    assert (key_of(given) == key_of(other)) == (exact(given) == exact(other))


@given(inputs, st.integers(0, 20))
def test_text_does_not_flow_into_the_prefix(given, cut):
    joined = given["prefix"] + given["text"]
    moved = given | {"prefix": joined[:cut], "text": joined[cut:]}
    assert (key_of(given) == key_of(moved)) == (given["prefix"] == moved["prefix"])


@given(st.dictionaries(texts, scalars, min_size=2))
def test_the_order_of_options_does_not_count(options):
    turned = dict(reversed(options.items()))
    keys = [KeySpace(identity="a", dimensions=None, prefix="", options=given).key("x") for given in (options, turned)]
    assert keys[0] == keys[1]


def test_many_keys_are_the_single_ones():
    space = KeySpace(identity="a@1", dimensions=64, prefix="p", options={"a": 1})
    assert space.keys(["x", "y", "x"]) == [space.key("x"), space.key("y"), space.key("x")]


def test_keys_stay_what_they_are():
    """Another form would leave a fleet's whole cache behind at an upgrade: then SCHEMA must change too."""
    key = KeySpace(identity="m@1", dimensions=None, prefix="p: ", options={"num_ctx": 1}).key("text")
    assert key == "citadel:embedding:1:m@1:own:4fc7a7dded28f0bd223b43d3e4e829fd"


@given(inputs)
def test_a_key_tells_its_parts(given):
    parts = parse_key(key_of(given))
    assert parts is not None
    assert parts[:3] == (SCHEMA, given["identity"], str(given["dimensions"] or "own"))


@pytest.mark.parametrize("key", ["", "citadel:embedding", "citadel:embedding:1:a@1", "citadel:models", "mine:1:a:b:c"])
def test_a_text_that_is_not_a_key_has_no_parts(key):
    assert parse_key(key) is None
