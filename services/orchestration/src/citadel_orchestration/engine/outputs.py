"""JSON of the values that a run keeps: outputs of steps and runs, items of a `for_each`.

A value is kept exactly or refused with its place. It is measured before it is written, for its parts may be shared and
its JSON much longer than it is in memory. Only in outputs of steps is text that cannot be stored replaced, as
`citadel_common.text` says.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from citadel_common.errors import InvalidInput
from citadel_common.memory import take
from citadel_common.text import storable_value
from citadel_contracts import json_text
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, MOST_LEVELS, OPTIONS, SizeLimit

_ROOM = 254 - MOST_LEVELS
_STORING = 5
"""Bytes of memory for a byte of JSON that is stored: itself, and twice the hexadecimal form that PostgreSQL is sent."""


def encoded_output(output: Any, limit: SizeLimit = DEFAULT_RUN_LIMITS.output) -> tuple[Any, bytes]:
    """Return a step's output with texts that can be stored, and its JSON.

    Raises:
        InvalidInput: It is not JSON, or has something that cannot be kept exactly.
        PayloadTooLarge: Its JSON is over the limit.
    """
    take(_STORING * limit.check(output, "the output"))
    with suppress(InvalidInput):  # half of a surrogate pair
        body = _encoded(output, "the output")
        if b"\\u0000" not in body:
            return output, body
    with suppress(RecursionError):
        output = storable_value(output)
    return output, _encoded(output, "the output")


def encoded(value: Any, limit: SizeLimit, what: str = "the output") -> bytes:
    """Return the JSON of a value.

    Args:
        value: The value; its parts may be of all types that orjson writes.
        limit: The most bytes of its JSON.
        what: Its name in errors.

    Raises:
        InvalidInput: It is not JSON, or has something that cannot be kept exactly; the message says where.
        PayloadTooLarge: Its JSON is over the limit.
    """
    take(_STORING * limit.check(value, what))
    return _encoded(value, what)


def encoded_items(items: Sequence[Any], limit: SizeLimit) -> list[bytes]:
    """Return the JSON of each item of a `for_each`; the limit holds for all together.

    Raises:
        InvalidInput: An item is not JSON, or has something that cannot be kept exactly.
        PayloadTooLarge: They are over the limit.
    """
    take(_STORING * limit.check(items, "for_each.items"))
    return [_encoded(item, f"for_each.items[{index}]") for index, item in enumerate(items)]


def _encoded(value: Any, what: str) -> bytes:
    try:
        body = _written(value)
        if b"null" in body:  # orjson's word for NaN and infinities too
            json_text.check(value, levels=MOST_LEVELS)
    except TypeError as error:
        raise InvalidInput(f"{what} cannot be written as JSON: {_problem(value) or error}") from None
    except json_text.UnusableValue as error:
        raise InvalidInput(f"{what} cannot be written as JSON: {error}") from None
    return body


def _problem(value: Any) -> str | None:
    try:
        json_text.check(value, levels=MOST_LEVELS)
    except json_text.UnusableValue as error:
        return str(error)
    return None


def _written(value: Any) -> bytes:
    for _ in range(_ROOM):
        value = [value]
    return orjson.dumps(value, option=OPTIONS)[_ROOM:-_ROOM]
