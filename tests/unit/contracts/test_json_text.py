"""JSON from outside: the quick look finds every number that needs the close one."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_contracts import json_text

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,5})?", fullmatch=True)


def is_kept(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(is_kept, value.values()))
    if isinstance(value, list):
        return all(map(is_kept, value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return not isinstance(value, float) or math.isfinite(value)


@given(values)
def test_a_value_is_read_as_it_was_written_or_refused(value: object) -> None:
    text = json.dumps(value).encode()
    try:
        found = json_text.loads(text)
    except (json_text.NotJson, json_text.UnusableValue):
        assert not is_kept(value) or "\\ud" in text.decode()
        return
    assert is_kept(value)
    assert repr(found) == repr(json.loads(text))


@given(numbers, st.binary(max_size=5))
def test_no_number_changes_without_a_word(number: str, before: bytes) -> None:
    text = b'{"%b":[%b]}' % (before.hex().encode(), number.encode())
    expected = json.loads(text)
    if is_kept(expected):
        assert repr(json_text.loads(text)) == repr(expected)
        return
    assert json_text.may_hold_extremes(text)
    with pytest.raises(json_text.UnusableValue) as caught:
        json_text.loads(text)
    assert caught.value.path == (before.hex(), 0)


@pytest.mark.parametrize("levels", [199, 200, 202, 10_000, 1_000_000])
def test_levels_are_bounded(levels: int) -> None:
    text = b"[" * levels + b"]" * levels
    if levels <= json_text.MOST_LEVELS:
        json_text.loads(text)
        return
    with pytest.raises(json_text.NotJson, match="more than 200 levels"):
        json_text.loads(text)


def test_a_deep_value_is_checked_without_recursion() -> None:
    value: object = 10**30
    for _ in range(100_000):
        value = [value]
    with pytest.raises(json_text.UnusableValue, match="integer beyond 64 bits"):
        json_text.check(value)
