"""Query parameters: unknown and bad ones are refused by name."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams

from citadel_common.errors import InvalidInput


def documented_query(*names: str) -> list[dict[str, Any]]:
    """Return the OpenAPI entries of query parameters."""
    return [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]


def check_names(query: QueryParams, known: Collection[str]) -> None:
    """Refuse unknown parameters.

    Raises:
        InvalidInput: The query has a parameter that the route does not know.
    """
    for name in query:
        if name not in known:
            raise InvalidInput.at(name, f"is not a parameter of this route; it has {', '.join(known)}")


def time_of(text: str | None, field: str) -> datetime | None:
    """Return a time given in ISO 8601; a time without a zone is UTC.

    Raises:
        InvalidInput: The text is not a time.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput.at(field, "must be a time in ISO 8601") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def number_of(text: str, field: str, *, least: int = 1, most: int) -> int:
    """Return a whole number from `least` to `most`.

    Raises:
        InvalidInput: The text is not such a number.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19 and least <= int(text) <= most):
        raise InvalidInput.at(field, f"must be a whole number from {least} to {most}")
    return int(text)


def flag_of(text: str, field: str) -> bool:
    """Return the value of `true` or `false`.

    Raises:
        InvalidInput: The text is neither.
    """
    if text not in ("true", "false"):
        raise InvalidInput.at(field, "must be true or false")
    return text == "true"


def one_of(known: Collection[str], text: str | None, field: str) -> str | None:
    """Return the text, one of `known`; None when the parameter is absent.

    Raises:
        InvalidInput: The text is none of them.
    """
    if text is not None and text not in known:
        raise InvalidInput.at(field, f"must be one of {', '.join(sorted(known))}")
    return text


def labels_of(query: QueryParams) -> dict[str, str]:
    """Return the labels: `label=name:value`, any number of times.

    Raises:
        InvalidInput: A label has another form.
    """
    return dict(map(_label, query.getlist("label")))


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name:
        raise InvalidInput.at("label", "must be name:value")
    return name, value
