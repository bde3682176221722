"""Bindings of exchanges in Redis, as kombu stores them: routing key, pattern and queue, joined by a client's separator.

Kombu splits them by its own separator. The binding of a client with another one would fail every lookup of that
exchange: a worker could not answer that client's `inspect`, or publish into an exchange that both have declared.
"""

import re

Binding = tuple[str, str, str]
"""Routing key, pattern and queue."""
_OF_OTHERS = re.compile(r"(.*?)([^A-Za-z0-9]{1,16})\2(.+)", re.DOTALL)
"""A binding without a pattern, as direct exchanges have it: its separator stands twice in a row."""
_PATTERN = "^"
"""The first character of each pattern, which may hold any characters twice."""


def binding_of(member: str, separator: str) -> Binding | None:
    """Return the binding in a member of an exchange's set; None if its separator cannot be told.

    Args:
        member: The member.
        separator: The separator of this process, which is tried first.
    """
    parts = member.split(separator)
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    other = None if _PATTERN in member else _OF_OTHERS.fullmatch(member)
    return None if other is None else (other[1], "", other[3])
