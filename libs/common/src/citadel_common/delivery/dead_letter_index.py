"""The index of dead letters: heads, positions, filters and pages."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from citadel_common.errors import InvalidInput

SHOWN = 500
"""Characters of an error message in a head."""


def strict_json(content: dict[str, Any]) -> bytes:
    """Return strict JSON; what it cannot express (lone surrogates, integers beyond 64 bits) is approximated."""
    try:
        return orjson.dumps(content, default=str)
    except TypeError:
        return json.dumps(content, default=str, ensure_ascii=False).encode("utf-8", "replace")


class Position(NamedTuple):
    """A position in the index, which is sorted by time and then by id; the newest is the greatest.

    Attributes:
        at: Seconds since the epoch.
        id: The dead letter's id in UTF-8, because Redis sorts equal times by bytes.
    """

    at: float
    id: bytes

    @property
    def cursor(self) -> str:
        """Return the position as an opaque text for clients."""
        return base64.urlsafe_b64encode(f"{self.at!r}:".encode() + self.id).decode()

    @classmethod
    def parse(cls, cursor: str) -> "Position":
        """Return the position of a client's cursor.

        Raises:
            InvalidInput: The text is not a cursor.
        """
        try:
            at, _, dead_letter_id = base64.urlsafe_b64decode(cursor.encode()).partition(b":")
            return cls(at=float(at), id=dead_letter_id)
        except (ValueError, binascii.Error):
            raise InvalidInput.at("cursor", "is not one that a page of this list gave") from None


START = Position(at=float("inf"), id=b"")


@dataclass(frozen=True, kw_only=True)
class DeadLetterHead:
    """The part of a dead letter that lists show.

    Attributes:
        at: Seconds since the epoch.
        attempts: Number of entries in its history.
        requeueable: Whether it is a task, as opposed to a message that could not be decoded.
    """

    id: str
    queue: str
    task: str | None
    code: str
    error: str
    at: float
    priority: int | None
    deliveries: int
    attempts: int
    requeueable: bool

    @property
    def kind(self) -> str:
        """Return the name under which it is counted."""
        return f"{self.queue}\x1f{self.code}"

    @property
    def position(self) -> Position:
        """Return its position in the index."""
        return Position(at=self.at, id=self.id.encode())

    def to_json(self) -> bytes:
        """Return the stored form, without the id."""
        return strict_json({name: value for name, value in vars(self).items() if name != "id"})

    @classmethod
    def parse(cls, dead_letter_id: str, stored: bytes) -> "DeadLetterHead":
        """Return the head of a stored form; fields of later versions are ignored."""
        known = cls.__dataclass_fields__
        return cls(id=dead_letter_id, **{name: value for name, value in orjson.loads(stored).items() if name in known})


@dataclass(frozen=True, kw_only=True)
class DeadLetterFilter:
    """A filter of dead letters; a field that is None lets everything through.

    Attributes:
        queue: Queue that they came from.
        task: Their registered name.
        code: Their error code.
        since: Earliest time, in seconds since the epoch; included.
        until: Latest time; excluded.
        error: Part of the error message; case is ignored.
    """

    queue: str | None = None
    task: str | None = None
    code: str | None = None
    since: float | None = None
    until: float | None = None
    error: str | None = None

    @property
    def names_some(self) -> bool:
        """Return whether the filter has any condition."""
        return any(value is not None for value in vars(self).values())

    @property
    def start(self) -> Position:
        """Return the position before the newest dead letter that may fit."""
        return START if self.until is None else Position(at=self.until, id=b"")

    def fits(self, head: DeadLetterHead) -> bool:
        """Return whether a dead letter fits, but for its time: the walk's start and end bound that."""
        wanted = ((self.queue, head.queue), (self.task, head.task), (self.code, head.code))
        if any(asked is not None and asked != has for asked, has in wanted):
            return False
        return self.error is None or self.error.casefold() in head.error.casefold()


class DeadLetterPage(NamedTuple):
    """Some dead letters, and the cursor of the next page; None at the end."""

    heads: list[DeadLetterHead]
    cursor: str | None
