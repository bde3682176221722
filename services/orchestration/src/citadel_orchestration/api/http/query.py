"""Parameters in a query: each read strictly, what is wrong named by its field."""

from datetime import UTC, datetime

from citadel_common.errors import InvalidInput


def time_of(text: str | None, field: str) -> datetime | None:
    """A time in ISO 8601; without a zone it is UTC.

    Raises:
        InvalidInput: It is none.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput.at(field, "must be a time in ISO 8601") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def number_of(text: str, field: str, *, most: int) -> int:
    """A whole number from 1 to `most`.

    Raises:
        InvalidInput: It is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise InvalidInput.at(field, f"must be a whole number from 1 to {most}")
    return int(text)


def flag_of(text: str, field: str) -> bool:
    """`true` or `false`.

    Raises:
        InvalidInput: It is neither.
    """
    if text not in ("true", "false"):
        raise InvalidInput.at(field, "must be true or false")
    return text == "true"
