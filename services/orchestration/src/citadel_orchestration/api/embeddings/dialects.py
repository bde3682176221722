"""Fields that clients of other servers send to `/v1/embeddings`: those with a meaning here are honoured, others named.

Gateways and clients add fields of their own to OpenAI's body, and no server refuses them. So a field without a meaning
here is ignored, and the response names it; `CITADEL_API__UNKNOWN_FIELDS=refuse` makes it an error.
"""

import contextlib
import difflib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, get_args
from urllib.parse import quote

from pydantic import ValidationError

from citadel_common.errors import InvalidInput
from citadel_common.validation import BadField, bad_fields, invalid_input
from citadel_contracts.api import EmbeddingsRequest
from citadel_contracts.dialects import InputType, input_type_of
from citadel_orchestration.settings import UnknownFields

IGNORED_HEADER = "citadel-ignored-fields"
INPUT_TYPE_HEADER = "citadel-input-type"
"""Request header for clients that can add headers to a request, and no fields."""
MOST_NAMED = 20
"""Fields that the header names."""
LONGEST_NAME = 64
_SAME = {
    "truncation": "truncate",
    "truncation_side": "truncate",
    "truncation_direction": "truncate",
    "output_dimension": "dimensions",
    "output_dimensionality": "dimensions",
    "task": "input_type",
    "task_type": "input_type",
    "prompt_name": "input_type",
}
"""The field of Citadel's that another server's field means."""
_SIDES = frozenset({"truncation_side", "truncation_direction"})
_MAY_MEAN_ELSE = frozenset({"task", "task_type", "prompt_name"})
"""Fields that are ignored with a value that is not an input type."""


class Understood(NamedTuple):
    """A request without foreign fields, and the names of those that were ignored."""

    body: EmbeddingsRequest
    ignored: tuple[str, ...] = ()


def understand(body: EmbeddingsRequest, unknown: UnknownFields) -> Understood:
    """Return the request with the foreign fields that mean something in their places.

    Raises:
        InvalidInput: A value is not valid, two fields contradict each other, or a field is unknown and that is refused.
    """
    foreign = body.model_extra
    if not foreign:
        return Understood(body)
    ignored = tuple(name for name, value in foreign.items() if not _has_meaning(name, value))
    if ignored and unknown == "refuse":
        raise invalid_input([_unknown(name) for name in ignored])
    changes: dict[str, Any] = {}
    for name in sorted(foreign.keys() - set(ignored), key=lambda name: name in _SIDES):
        field = _SAME[name]
        if (value := _value_of(name, foreign[name])) is not None:
            changes[field] = _agreed(name, value, changes.get(field, getattr(body, field)))
    return Understood(body.model_copy(update=changes), ignored)


def with_input_type(body: EmbeddingsRequest, spelling: str) -> EmbeddingsRequest:
    """Return the request with the input type of its header, unless the body names one.

    Raises:
        InvalidInput: The spelling is not known.
    """
    if not spelling or "input_type" in body.model_fields_set:
        return body
    try:
        return body.model_copy(update={"input_type": input_type_of(spelling)})
    except ValueError as error:
        raise InvalidInput.at(INPUT_TYPE_HEADER, str(error)) from None


def ignored_header(names: Collection[str]) -> Mapping[str, str]:
    """Return the response header that names ignored fields; empty if there are none."""
    if not names:
        return {}
    shown = [quote(name[:LONGEST_NAME], safe="", errors="replace") for name in list(names)[:MOST_NAMED]]
    more = [f"and {len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return {IGNORED_HEADER: ", ".join(shown + more)}


def _has_meaning(name: str, value: Any) -> bool:
    if name not in _MAY_MEAN_ELSE or value is None:
        return name in _SAME
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and input_type_of(value) in (*get_args(InputType), None)
    return False


def _value_of(name: str, value: Any) -> Any:
    """Return the value of a foreign field as that of the field which it means.

    Raises:
        InvalidInput: The value is not valid.
    """
    field = _SAME[name]
    try:
        return getattr(EmbeddingsRequest.model_validate({"input": "", field: value}), field)
    except ValidationError as error:
        raise invalid_input([BadField(path=(name,), problem=bad_fields(error)[0].problem)]) from None


def _agreed(name: str, value: Any, said: Any) -> Any:
    """Return the value of a field that another field may have given already.

    Raises:
        InvalidInput: The two contradict each other.
    """
    if said is None or said == value:
        return value
    if name in _SIDES:  # a side says where to cut, not whether
        return said and value
    raise InvalidInput.at(name, f"contradicts {_SAME[name]!r}, which is {said!r}")


def _unknown(name: str) -> BadField:
    near = difflib.get_close_matches(name, [*EmbeddingsRequest.model_fields, *_SAME], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return BadField(path=(name,), problem=f"is not a known field{hint}")
