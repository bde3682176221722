"""Filters select the same points with a server and with the embedded engine."""

import pytest

from citadel_orchestration.vectors.points import Point

POINTS = [Point(id=number, vector=[float(number), 0.0], payload={"rank": number}) for number in range(1, 9)]
QUERY = [0.0, 0.0]
FILTERS = [
    ({"must": {"has_id": [1]}}, [1]),
    ({"must": [{"is_empty": {"key": "nope"}}]}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({"must": [{"is_null": {"key": "nope"}}]}, []),
    ({"min_should": {"conditions": [{"has_id": [1, 2]}, {"has_id": [2, 3]}], "min_count": 2}}, [2]),
    ({"should": [{"key": "rank", "range": {"gt": 1, "lte": 2.5}}]}, [2]),
    ({"must": [{"key": "rank", "values_count": {"gte": 1}}], "must_not": [{"has_id": [1]}]}, [2, 3, 4, 5, 6, 7, 8]),
    ({"must": [{"key": "rank", "match": {"except": [1, 2, 3, 4, 5, 6]}}]}, [7, 8]),
    ({"must": [{"key": "rank", "match": {"any": [1, 4]}}]}, [1, 4]),
    ({"must": [{"nested": {"key": "a", "filter": {"must": [{"key": "b", "match": {"value": 1}}]}}}]}, []),
    ({"must": [{"key": "when", "range": {"gte": "2026-01-01T00:00:00Z"}}]}, []),
    ({"must": [{"should": [{"has_id": [1]}, {"key": "rank", "match": {"value": 2}}]}]}, [1, 2]),
    ({"must": []}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
]


@pytest.mark.parametrize(("conditions", "found"), FILTERS)
def test_every_form_of_a_filter_selects_the_same_points(with_store, docs, conditions, found):
    async def work(store):
        await store.upsert(docs, POINTS, distance="euclid")
        return [hit.id for hit in await store.search(docs, QUERY, conditions=conditions)]

    assert with_store(work) == found
