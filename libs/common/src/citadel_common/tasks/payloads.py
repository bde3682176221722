"""Turns a task's arguments into its payload model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from citadel_common.errors import InvalidInput
from citadel_common.validation import bad_fields
from citadel_contracts import Payload

P = TypeVar("P", bound=Payload)
SHOWN = 5
"""Bad fields named in one message."""


def parse_payload(model: type[P], args: Sequence[Any], kwargs: Mapping[str, Any]) -> P:
    """The payload of a call; positional arguments take the model's field order.

    Raises:
        InvalidInput: Names each bad field.
    """
    fields = list(model.model_fields)
    if len(args) > len(fields):
        raise InvalidInput(f"takes at most {len(fields)} arguments ({', '.join(fields)}), got {len(args)}")
    named = dict(zip(fields, args, strict=False))
    twice = named.keys() & kwargs.keys()
    if twice:
        raise InvalidInput.at(min(twice), "is given both by position and by name")
    try:
        return model.model_validate(named | dict(kwargs))
    except ValidationError as error:
        problems = [str(bad) for bad in bad_fields(error)]
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InvalidInput("; ".join(problems[:SHOWN]) + more) from None
