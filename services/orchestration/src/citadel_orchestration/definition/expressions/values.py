"""JSON values by CEL's rules: comparison, selection, arithmetic and results.

Numbers of both kinds compare by value; values of different kinds are never equal and have no order. Integers have 64
bits and overflow into an error.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from citadel_orchestration.definition.expressions.evaluation import (
    ENTRY,
    LIST,
    MAP,
    REFERENCE,
    Failed,
    Meter,
    text_bytes,
)


class BuiltList(list[Any]):
    """A list that an expression has made; lists of the scope go through unchanged."""

    __slots__ = ()


class BuiltMap(dict[Any, Any]):
    """A map that an expression has made."""

    __slots__ = ()


def kind(value: Any) -> str:
    """Return CEL's name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    for python, name in ((int, "int"), (float, "double"), (str, "string"), (list, "list"), (Mapping, "map")):
        if isinstance(value, python):
            return name
    return "value"


def is_number(value: Any) -> bool:
    """Return True for an int or a double."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(left: Any, right: Any, meter: Meter) -> bool:
    """Compare by CEL's `==`."""
    if is_number(left) and is_number(right):
        return bool(left == right)
    if isinstance(left, list) and isinstance(right, list):
        return _equal_lists(left, right, meter)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return _equal_maps(left, right, meter)
    return kind(left) == kind(right) and bool(left == right)


def _equal_lists(left: list[Any], right: list[Any], meter: Meter) -> bool:
    if len(left) != len(right):
        return False
    for one, other in zip(left, right, strict=True):
        meter.spend()
        if not equal(one, other, meter):
            return False
    return True


def _equal_maps(left: Mapping[Any, Any], right: Mapping[Any, Any], meter: Meter) -> bool:
    if len(left) != len(right):
        return False
    for key, value in left.items():
        meter.spend()
        if key not in right or not equal(value, right[key], meter):
            return False
    return True


def contains(item: Any, container: Any, meter: Meter) -> bool:
    """Apply CEL's `in`: an element of a list, or a key of a map."""
    if isinstance(container, Mapping):
        return isinstance(item, str | int) and item in container
    if not isinstance(container, list):
        raise Failed(f"`in` needs a list or a map on its right, not {kind(container)}")
    for element in container:
        meter.spend()
        if equal(item, element, meter):
            return True
    return False


def compare(left: Any, right: Any) -> int:
    """Return a negative number, zero or a positive one, as left is less than, equal to or greater than right."""
    same = (is_number(left) and is_number(right)) or (kind(left) == kind(right) and isinstance(left, str | bool))
    if not same:
        raise Failed(f"{kind(left)} and {kind(right)} have no order")
    return int(left > right) - int(left < right)


def select(value: Any, name: str) -> Any:
    """Return CEL's `value.name`."""
    if not isinstance(value, Mapping):
        raise Failed(f"{kind(value)} has no field `{name[:100]}`")
    try:
        return value[name]
    except KeyError:
        raise Failed(f"there is no `{name[:100]}`") from None


def index(value: Any, key: Any) -> Any:
    """Return CEL's `value[key]`."""
    if isinstance(value, list):
        return _element(value, key)
    if isinstance(value, Mapping) and isinstance(key, int) and not isinstance(key, bool):
        return _entry(value, key)
    if isinstance(value, Mapping) and isinstance(key, bool):
        return _entry(value, key)
    if isinstance(value, Mapping) and not isinstance(key, str):
        raise Failed(f"a map has no key of type {kind(key)}")
    if not isinstance(key, str):
        raise Failed(f"{kind(value)} has no index")
    return select(value, key)


def _entry(value: Mapping[Any, Any], key: int) -> Any:
    """Return the entry of an int or a bool: for Python, but not for CEL, true and 1 are the same key."""
    for known, entry in value.items() if key in value else ():
        if type(known) is type(key) and known == key:
            return entry
    raise Failed(f"there is no key {key}")


def _element(value: list[Any], key: Any) -> Any:
    if not isinstance(key, int) or isinstance(key, bool):
        raise Failed(f"a list's index must be an int, not {kind(key)}")
    if not 0 <= key < len(value):
        raise Failed(f"there is no element {key} in a list of {len(value)}")
    return value[key]


def to_json(value: Any, meter: Meter) -> Any:
    """Return a result as plain JSON; lists and maps of the scope are not copied."""
    if isinstance(value, BuiltList):
        meter.grow(LIST + len(value) * REFERENCE)
        return [to_json(element, meter) for element in value]
    if isinstance(value, BuiltMap):
        meter.grow(MAP + len(value) * ENTRY)
        return {_key(key): to_json(entry, meter) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise Failed("the result is not a finite number")
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise Failed(f"JSON has no keys of type {kind(key)}")
    return key


SMALLEST, LARGEST = -(2**63), 2**63 - 1


def in_range(value: int) -> int:
    """Return the value if it fits into 64 bits."""
    if not SMALLEST <= value <= LARGEST:
        raise Failed("the number is outside of 64 bits")
    return value


def add(left: Any, right: Any, meter: Meter) -> Any:
    """Apply `+` to numbers, strings or lists."""
    if isinstance(left, str) and isinstance(right, str):
        meter.grow(text_bytes(len(left) + len(right), left, right))
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        meter.grow(LIST + (len(left) + len(right)) * REFERENCE)
        return BuiltList([*left, *right])
    _same(left, right, "+")
    return _whole(left + right)


def subtract(left: Any, right: Any, _meter: Meter) -> Any:
    """Apply `-` to numbers."""
    _same(left, right, "-")
    return _whole(left - right)


def multiply(left: Any, right: Any, _meter: Meter) -> Any:
    """Apply `*` to numbers."""
    _same(left, right, "*")
    return _whole(left * right)


def divide(left: Any, right: Any, _meter: Meter) -> Any:
    """Apply `/` to numbers; ints are rounded towards zero."""
    _same(left, right, "/")
    if right == 0:
        raise Failed("division by zero")
    if isinstance(left, int):
        return in_range(_towards_zero(left, right))
    return left / right


def remainder(left: Any, right: Any, _meter: Meter) -> Any:
    """Apply `%` to ints; the sign is that of the left one."""
    _same(left, right, "%")
    if not isinstance(left, int):
        raise Failed("`%` needs ints")
    if right == 0:
        raise Failed("division by zero")
    return left - right * _towards_zero(left, right)


def negate(value: Any) -> Any:
    """Apply `-` before a number."""
    if not is_number(value):
        raise Failed(f"`-` needs a number, not {kind(value)}")
    return _whole(-value)


OPERATORS: dict[str, Callable[[Any, Any, Meter], Any]] = {
    "addition_add": add,
    "addition_sub": subtract,
    "multiplication_mul": multiply,
    "multiplication_div": divide,
    "multiplication_mod": remainder,
}
"""Arithmetic by the grammar's names."""


def _same(left: Any, right: Any, sign: str) -> None:
    if not (is_number(left) and is_number(right)):
        raise Failed(f"`{sign}` does not go with {kind(left)} and {kind(right)}")
    if isinstance(left, int) != isinstance(right, int):
        raise Failed(f"`{sign}` needs two ints or two doubles; convert with int() or double()")


def _towards_zero(left: int, right: int) -> int:
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _whole(value: float) -> Any:
    if isinstance(value, int):
        return in_range(value)
    if math.isnan(value):
        raise Failed("the result is not a number")
    return value
