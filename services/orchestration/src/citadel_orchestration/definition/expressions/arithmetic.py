"""CEL's arithmetic: 64-bit integers that overflow into an error, doubles, and joined strings and lists."""

import math
from collections.abc import Callable
from typing import Any

from citadel_orchestration.definition.expressions.budget import Meter
from citadel_orchestration.definition.expressions.failures import Failed
from citadel_orchestration.definition.expressions.values import BuiltList, is_number, kind

SMALLEST, LARGEST = -(2**63), 2**63 - 1


def in_range(value: int) -> int:
    """The value, if it is a 64-bit integer."""
    if not SMALLEST <= value <= LARGEST:
        raise Failed("the number is outside of 64 bits")
    return value


def add(left: Any, right: Any, meter: Meter) -> Any:
    """`+` of numbers, strings or lists."""
    if isinstance(left, str) and isinstance(right, str):
        meter.grow(len(left) + len(right))
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        meter.grow(len(left) + len(right))
        return BuiltList([*left, *right])
    _same(left, right, "+")
    return _whole(left + right)


def subtract(left: Any, right: Any, _meter: Meter) -> Any:
    """`-` of numbers."""
    _same(left, right, "-")
    return _whole(left - right)


def multiply(left: Any, right: Any, _meter: Meter) -> Any:
    """`*` of numbers."""
    _same(left, right, "*")
    return _whole(left * right)


def divide(left: Any, right: Any, _meter: Meter) -> Any:
    """`/` of numbers; of ints towards zero."""
    _same(left, right, "/")
    if right == 0:
        raise Failed("division by zero")
    if isinstance(left, int):
        return in_range(_towards_zero(left, right))
    return left / right


def remainder(left: Any, right: Any, _meter: Meter) -> Any:
    """`%` of ints; the sign is the left one's."""
    _same(left, right, "%")
    if not isinstance(left, int):
        raise Failed("`%` needs ints")
    if right == 0:
        raise Failed("division by zero")
    return left - right * _towards_zero(left, right)


def negate(value: Any) -> Any:
    """`-` before a number."""
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
"""By the grammar's names."""


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
