"""What Qdrant's server checks in filters beyond their form."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.doubles.base.refusals import refuse

Json = Mapping[str, Any]
CLAUSES = ("must", "should", "must_not")
TESTS = frozenset(
    {"match", "range", "geo_bounding_box", "geo_radius", "geo_polygon", "values_count", "is_empty", "is_null"}
)
UNPROCESSABLE = 422


def conditions(raw: Json | None, where: str = "filter") -> Iterator[tuple[str, Json]]:
    """Yield all conditions of a filter with their places, those of nested filters included."""
    for clause in CLAUSES:
        found = (raw or {}).get(clause) or []
        for index, each in enumerate(found if isinstance(found, list) else [found]):
            yield from _of_one(each, f"{where}.{clause}[{index}]")
    for index, each in enumerate(((raw or {}).get("min_should") or {}).get("conditions", [])):
        yield from _of_one(each, f"{where}.min_should.conditions[{index}]")


def _of_one(condition: Json, where: str) -> Iterator[tuple[str, Json]]:
    if any(clause in condition for clause in (*CLAUSES, "min_should")):
        yield from conditions(condition, where)
    elif "nested" in condition:
        yield from conditions(condition["nested"].get("filter"), f"{where}.nested.filter")
    else:
        yield where, condition


def check(raw: Json | None) -> None:
    """Refuse conditions without a test, and places that are not on the globe."""
    for where, condition in conditions(raw):
        if "key" in condition and not TESTS & condition.keys():
            problem = "Validation error: At least one field condition must be specified [{}]"
            raise refuse(UNPROCESSABLE, f"Validation error in JSON body: [internal.{where}.__all__: {problem}]")
        center = (condition.get("geo_radius") or {}).get("center") or {}
        lat, lon = center.get("lat", 0), center.get("lon", 0)
        if not (-90 <= lat <= 90 and -180 <= lon <= 180):
            expected = f"expected `lat` = {lat} within [-90;90] and `lon` = {lon} within [-180;180]"
            raise refuse(400, f"Format error in JSON body: Wrong format of GeoPoint payload: {expected}")
