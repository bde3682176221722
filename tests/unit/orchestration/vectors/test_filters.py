"""Filters in both forms, and what a user is told about a wrong one."""

import pytest

from citadel_common.errors import VectorStoreRefused
from citadel_orchestration.vectors.filters import read_filter


def as_json(raw):
    return read_filter(raw).model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize("raw", [None, {}])
def test_an_empty_filter_filters_nothing(raw):
    assert read_filter(raw) is None


def test_a_plain_mapping_means_that_all_values_must_match():
    assert as_json({"lang": "de", "year": 2024, "draft": False}) == {
        "must": [
            {"key": "lang", "match": {"value": "de"}},
            {"key": "year", "match": {"value": 2024}},
            {"key": "draft", "match": {"value": False}},
        ]
    }


def test_a_list_matches_any_of_its_values():
    assert as_json({"lang": ["de", "fr"], "year": [2023, 2024]}) == {
        "must": [
            {"key": "lang", "match": {"any": ["de", "fr"]}},
            {"key": "year", "match": {"any": [2023, 2024]}},
        ]
    }


def test_qdrants_form_is_taken_as_it_is():
    raw = {
        "must": [{"key": "price", "range": {"gte": 10.0, "lt": 20.0}}],
        "must_not": [{"is_empty": {"key": "title"}}, {"has_id": [1, 2]}],
        "should": [{"key": "lang", "match": {"any": ["de"]}}, {"must": [{"key": "a", "match": {"value": 1}}]}],
        "min_should": {"conditions": [{"key": "a", "match": {"text": "word"}}], "min_count": 1},
    }

    assert as_json(raw) == raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"price": 1.5}, "filter.price: must be a string, a whole number"),
        ({"price": None}, "filter.price: must be"),
        ({"lang": []}, "filter.lang: must be"),
        ({"lang": ["de", 1]}, "filter.lang: must be"),
        ({"lang": {"value": "de"}}, "filter.lang: must be"),
        ({"must": [], "lang": "de"}, "filter.lang: stands beside 'must'"),
        ({"must": [{"key": "a", "match": {"valu": 1}}]}, "filter.must[0].match.valu: is not known here"),
        ({"must": [{"key": "a", "matches": {"value": 1}}]}, "filter.must[0].matches: is not known here"),
        ({"must": "x"}, "filter.must: input should be a valid list"),
        ({"must": [3]}, "filter.must[0]: has no form that Qdrant knows"),
        ({"should": [{"key": 5, "match": {"value": 1}}]}, "filter.should[0].key: "),
        ({"must": [{"key": "a", "range": {"gt": "soon"}}]}, "filter.must[0].range.gt: "),
    ],
)
def test_a_wrong_filter_is_refused_where_it_is_wrong(raw, message):
    with pytest.raises(VectorStoreRefused) as caught:
        read_filter(raw)

    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 300


def test_a_filter_nested_beyond_reason_is_refused():
    raw = {"must": [{"key": "a", "match": {"value": 1}}]}
    for _ in range(2000):
        raw = {"must": [raw]}

    with pytest.raises(VectorStoreRefused):
        read_filter(raw)
