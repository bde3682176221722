"""Ids of points: stored for good, so the same everywhere and for ever."""

from uuid import UUID

import pytest

from citadel_common.errors import InvalidInput
from citadel_orchestration.vectors.points import point_id

GIVEN = "550e8400-e29b-41d4-a716-446655440000"
EXPECTED = {
    "string": "72bafbad-5691-5c49-8838-dcd8bfc89f3d",
    "text": "74707416-6a92-5f9e-96cb-e1a65c3c2bf0",
    "vector": "e4568270-d962-527a-8abd-be5cfe0f3265",
}


@pytest.mark.parametrize("number", [0, 7, 2**64 - 1])
def test_a_number_is_kept(number):
    assert point_id("docs", number) == number


@pytest.mark.parametrize("spelling", [GIVEN, GIVEN.upper(), GIVEN.replace("-", ""), f"urn:uuid:{GIVEN}"])
def test_a_uuid_is_kept_in_its_usual_spelling(spelling):
    assert point_id("docs", spelling) == GIVEN


def test_any_other_string_becomes_a_uuid_of_its_collection():
    first = point_id("docs", "chapter-1")

    assert UUID(str(first)).version == 5
    assert point_id("docs", "chapter-1") == first
    assert point_id("docs", "chapter-2") != first
    assert point_id("faq", "chapter-1") != first


def test_derived_ids_never_change():
    assert point_id("docs", "chapter-1") == EXPECTED["string"]
    assert point_id("docs", text="hello", payload={"b": 1, "a": "ü"}) == EXPECTED["text"]
    assert point_id("docs", vector=[0.5, 1.0], payload={}) == EXPECTED["vector"]


def test_without_an_id_the_content_decides():
    one = point_id("docs", text="hello", payload={"a": 1, "b": 2})

    assert point_id("docs", text="hello", payload={"b": 2, "a": 1}) == one
    assert point_id("docs", text="hello", payload={"a": 1, "b": 3}) != one
    assert point_id("docs", text="hullo", payload={"a": 1, "b": 2}) != one
    assert point_id("faq", text="hello", payload={"a": 1, "b": 2}) != one


def test_without_a_text_the_vector_decides():
    one = point_id("docs", vector=[0.1, 0.2])

    assert point_id("docs", vector=[0.1, 0.2]) == one
    assert point_id("docs", vector=[0.2, 0.1]) != one
    assert point_id("docs", vector=[0.1, 0.2], payload={"a": 1}) != one


def test_parts_cannot_be_shifted_into_each_other():
    ids = {point_id("a", "bc"), point_id("ab", "c"), point_id("a", text="bc"), point_id("ab", text="c")}

    assert len(ids) == 4


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": object()}])
def test_a_payload_that_is_not_json_is_refused(payload):
    with pytest.raises(InvalidInput, match="payload: is not JSON"):
        point_id("docs", text="hello", payload=payload)
