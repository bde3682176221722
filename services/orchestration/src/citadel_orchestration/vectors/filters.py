"""Search filters: Qdrant's own JSON form, or a plain mapping of payload keys to the values they must have."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from citadel_common.errors import VectorStoreRefused

if TYPE_CHECKING:
    from qdrant_client.models import Condition, Filter

CLAUSES = frozenset({"must", "must_not", "should", "min_should"})
_OTHER_SHAPES = frozenset({"missing", "extra_forbidden", "model_type"})
"""Kinds of errors that mean only that a condition has another shape."""

Location = tuple[str | int, ...]


def read_filter(raw: Mapping[str, Any] | None) -> "Filter | None":
    """Return the filter in the client's form; None if there is nothing to filter by.

    `{"must": [...], "must_not": [...], "should": [...], "min_should": {...}}` is Qdrant's form. Any other mapping
    means that each key must have its value: a string, a whole number or a boolean, or a list of which one matches.

    Raises:
        VectorStoreRefused: It is neither; the message says where.
    """
    if not raw:
        return None
    clauses = CLAUSES & set(raw)
    if not clauses:
        return _plain(raw)
    if strays := sorted(set(raw) - CLAUSES):
        raise _refused((strays[0],), f"stands beside {min(clauses)!r}; put it into a condition")
    from qdrant_client.models import Filter

    try:
        return Filter.model_validate(dict(raw))
    except ValidationError as error:
        raise _refused(*_deepest(error, raw)) from None


def _plain(raw: Mapping[str, Any]) -> "Filter":
    from qdrant_client.models import Filter

    return Filter(must=[_condition(key, value) for key, value in raw.items()])


def _condition(key: str, value: Any) -> "Condition":
    from qdrant_client.models import FieldCondition, MatchAny, MatchValue

    if isinstance(value, bool | int | str):
        return FieldCondition(key=key, match=MatchValue(value=value))
    if isinstance(value, list) and value and (_all(value, str) or _all(value, int)):
        return FieldCondition(key=key, match=MatchAny(any=value))
    raise _refused(
        (key,),
        "must be a string, a whole number, a boolean, or a list of strings or of whole numbers; "
        'for anything else use the full form: {"must": [{"key": …, "range": …}]}',
    )


def _all(values: list[Any], kind: type) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _refused(location: Location, problem: str) -> VectorStoreRefused:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return VectorStoreRefused.at(f"filter{where}", problem)


def _deepest(error: ValidationError, raw: Mapping[str, Any]) -> tuple[Location, str]:
    """Return where and why the best reading of a filter failed.

    A condition has one of many shapes, and pydantic reports an error for each of them. The shape that the user meant is
    the one that could be read furthest.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    places = [tuple(_walked(raw, detail["loc"])) for detail in details]
    best = max(places, key=len)
    there = [detail for detail, place in zip(details, places, strict=True) if place == best]
    if all(detail["type"] == "extra_forbidden" for detail in there):
        return best, "is not known here"
    messages = dict.fromkeys(detail["msg"] for detail in there if detail["type"] not in _OTHER_SHAPES)
    return best, ", or ".join(text[0].lower() + text[1:] for text in messages) or "has no form that Qdrant knows"


def _walked(raw: Any, location: Location) -> Iterator[str | int]:
    """Yield the parts of pydantic's location that exist in the filter; the others are names of classes."""
    for part in location:
        known = range(len(raw)) if isinstance(raw, list) else raw if isinstance(raw, Mapping) else ()
        if part in known:
            raw = raw[part]
            yield part
