"""Validation errors: each bad field once, by its name and its JSON pointer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from citadel_common.errors import InvalidInput
from citadel_contracts import Payload
from citadel_contracts.errors import FieldError, json_pointer

P = TypeVar("P", bound=Payload)
_UNION_TAGS = frozenset({"str", "list[str]", "int"})
"""Parts of pydantic's locations that name a branch of a union, not a field."""


@dataclass(frozen=True, kw_only=True)
class BadField:
    """One bad field: its path, such as ("batch_data", 3, "text"), and what is wrong."""

    path: tuple[str | int, ...]
    problem: str

    @property
    def name(self) -> str:
        """Return a name such as `batch_data[3].text`."""
        return _name(self.path)

    @property
    def place(self) -> tuple[str, int | None]:
        """Return the name and, if the bad field is an item of a list, its index there."""
        *above, last = self.path or ("body",)
        return (_name(above), last) if above and isinstance(last, int) else (self.name, None)

    @property
    def pointer(self) -> str:
        """Return a JSON pointer (RFC 6901) such as `/batch_data/3/text`."""
        return json_pointer(self.path)

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


LONGEST_PART = 200
"""Characters of a field's name in an error."""
SHOWN = 5
"""Most bad fields named in one message; the error's data have them all."""


MOST_NAMED = 200
"""Most errors that are named; each is compared with those before it."""
MOST_LISTED = 10_000
"""Errors beyond which none is named: pydantic makes a list of all of them, which takes a kilobyte each."""


def invalid_input(bad: Sequence[BadField], *, before: str = "") -> InvalidInput:
    """Return the error that names bad fields; `before` leads its message."""
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    field, index = bad[0].place
    return InvalidInput(
        before + "; ".join(map(str, bad[:SHOWN])) + more,
        field=field,
        index=index,
        errors=tuple(FieldError(pointer=found.pointer, detail=found.problem) for found in bad),
    )


def bad_fields(error: ValidationError) -> list[BadField]:
    """Return the bad fields in order; of a union's branches, the error that came furthest counts."""
    found: dict[tuple[str | int, ...], str] = {}
    for path, problem in _located(error):
        parents = [known for known in found if path[: len(known)] == known and len(known) < len(path)]
        for parent in parents:
            del found[parent]
        if not any(known[: len(path)] == path and len(known) > len(path) for known in found):
            found[path] = f"{found[path]}, or {problem}" if path in found else problem
    return [BadField(path=path, problem=problem) for path, problem in found.items()]


def _name(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "body"


def _located(error: ValidationError) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if error.error_count() > MOST_LISTED:
        yield (), f"has {error.error_count()} errors, more than are listed"
        return
    details = error.errors(include_url=False, include_context=False, include_input=False)
    for detail in details[:MOST_NAMED]:
        path = tuple(_short(part) for part in detail["loc"] if part not in _UNION_TAGS)
        yield path, _sentence(detail)


def _short(part: str | int) -> str | int:
    """Return a part of a path as errors show it: clients send names of a megabyte."""
    return part if isinstance(part, int) or len(part) <= LONGEST_PART else part[: LONGEST_PART - 1] + "…"


def _sentence(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return "is not a known field"
    if detail["type"] == "missing":
        return "is required"
    return message[0].lower() + message[1:].removesuffix(".")


def parse_payload(model: type[P], args: Sequence[Any], kwargs: Mapping[str, Any]) -> P:
    """Return the payload of a call; positional arguments take the model's field order.

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
        raise invalid_input(bad_fields(error)) from None
