"""Text from other servers, made storable and printable, and the errors that quote it."""

import json

import orjson
import pytest

from citadel_common.errors import CitadelError, InvalidInput, LlmUnavailable, from_data
from citadel_common.text import MESSAGE_LIMIT, printable, storable, storable_value


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("plain ü \U0001f600\n\t", "plain ü \U0001f600\n\t"),
        ("a\x00b", "a\ufffdb"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("other half \udc00", "other half \ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\udc00\ud83d", "\ufffd\ufffd"),
        ("", ""),
    ],
)
def test_text_is_kept_but_for_what_cannot_be_stored(text, kept):
    assert storable(text) == kept
    storable(text).encode()


def test_values_are_mended_at_every_depth_and_in_names():
    value = {"a\x00": [{"b": "\ud800"}, 1, None, True, 1.5]}
    assert storable_value(value) == {"a\ufffd": [{"b": "\ufffd"}, 1, None, True, 1.5]}


def test_control_characters_are_shown_as_escapes():
    assert printable("a\x00b\x1b[31m\r\n\tc\x9b") == "a\\x00b\\x1b[31m\\x0d\n\tc\\x9b"


def test_long_text_is_cut_and_says_so():
    assert printable("x" * 10_000_000).endswith("… (10000000 characters)")
    assert len(printable("x" * 10_000_000)) < MESSAGE_LIMIT + 50


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b", "x" * 10_000_000, "a\x1b[2Jb"])
def test_every_part_of_an_error_can_be_stored(bad):
    for error in (LlmUnavailable(bad), InvalidInput.at(f"text.{bad}", bad), InvalidInput.at("a", bad).about(bad)):
        written = orjson.dumps(error.data.model_dump())
        assert "\x00" not in json.dumps(json.loads(written))
        assert b"\\u0000" not in written
        assert len(written) < 10 * MESSAGE_LIMIT
        assert from_data(error.data).data == error.data


def test_an_error_keeps_its_count_of_calls():
    assert from_data(CitadelError("x", calls=3).data).calls == 3
    assert "calls" not in CitadelError("x").data.model_dump()
