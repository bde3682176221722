"""Requests of a batch file: a text per line, or NDJSON objects with `text` and `request_id`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import orjson

RequestId = str | int
KNOWN = frozenset({"text", "request_id"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line: its text, or what is wrong with it.

    Attributes:
        request_id: The caller's id; the line's number where there is none.
        text: What to embed.
        problem: Why it cannot be.
    """

    request_id: RequestId
    text: str = ""
    problem: str | None = None


def read(lines: Iterable[str]) -> Iterator[Request]:
    """The requests of a file; its first line tells whether it is NDJSON."""
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    filled = ((number, line) for number, line in numbered if line)
    first = next(filled, None)
    if first is None:
        return
    parse = _of_json if first[1].startswith("{") and _object(first[1]) is not None else _of_text
    for number, line in chain([first], filled):
        yield parse(number, line)


def _of_text(number: int, line: str) -> Request:
    return Request(request_id=number, text=line)


def _of_json(number: int, line: str) -> Request:
    found = _object(line)
    if found is None:
        return Request(request_id=number, problem="not a JSON object")
    given = found.get("request_id")
    request_id = number if given is None else given
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        return Request(request_id=number, problem="request_id must be a string or an integer")
    if unknown := found.keys() - KNOWN:
        return Request(request_id=request_id, problem=f"unknown fields: {', '.join(sorted(unknown))}")
    text = found.get("text")
    if not isinstance(text, str):
        return Request(request_id=request_id, problem="text must be a string")
    return Request(request_id=request_id, text=text)


def _object(line: str) -> "dict[str, object] | None":
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
