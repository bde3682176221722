"""JSON of the values that a run keeps: outputs of steps and runs, items of a `for_each`.

A value is kept exactly or refused with its place. Only in outputs of steps is text that cannot be stored replaced, as
`citadel_common.text` says.
"""

from contextlib import suppress
from typing import Any

import orjson

from citadel_common.errors import InvalidInput
from citadel_common.text import storable_value
from citadel_contracts import json_text

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_ROOM = 20
"""Levels of the 254 that orjson writes which are left for what a value is put into, such as answers of the API."""
MOST_LEVELS = 254 - _ROOM


def encoded_output(output: Any) -> tuple[Any, bytes]:
    """Return a step's output with texts that can be stored, and its JSON.

    Raises:
        InvalidInput: It is not JSON, or has something that cannot be kept exactly.
    """
    with suppress(InvalidInput):  # half of a surrogate pair
        body = encoded(output)
        if b"\\u0000" not in body:
            return output, body
    with suppress(RecursionError):
        output = storable_value(output)
    return output, encoded(output)


def encoded(value: Any, what: str = "the output") -> bytes:
    """Return the JSON of a value.

    Args:
        value: The value; its parts may be of all types that orjson writes.
        what: Its name in errors.

    Raises:
        InvalidInput: It is not JSON, or has something that cannot be kept exactly; the message says where.
    """
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
    return orjson.dumps(value, option=_OPTIONS)[_ROOM:-_ROOM]
