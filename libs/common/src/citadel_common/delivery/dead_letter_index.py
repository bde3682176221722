"""What the list of dead letters knows of each: its head, its place, and which ones a filter lets through."""

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
    """As strict JSON; what that cannot say (lone surrogates, integers beyond 64 bits) is approximated."""
    try:
        return orjson.dumps(content, default=str)
    except TypeError:
        return json.dumps(content, default=str, ensure_ascii=False).encode("utf-8", "replace")


class Position(NamedTuple):
    """A place in the index, which is sorted by time and then by id; the newest is the greatest.

    Attributes:
        at: Seconds since the epoch.
        id: The letter's id in UTF-8, in whose order Redis sorts equal times.
    """

    at: float
    id: bytes

    @property
    def cursor(self) -> str:
        """As text for clients."""
        return base64.urlsafe_b64encode(f"{self.at!r}:".encode() + self.id).decode()

    @classmethod
    def parse(cls, cursor: str) -> "Position":
        """From a client.

        Raises:
            InvalidInput: It is no cursor.
        """
        try:
            at, _, letter_id = base64.urlsafe_b64decode(cursor.encode()).partition(b":")
            return cls(at=float(at), id=letter_id)
        except (ValueError, binascii.Error):
            raise InvalidInput.at("cursor", "is not one that a page of this list gave") from None


START = Position(at=float("inf"), id=b"")


@dataclass(frozen=True, kw_only=True)
class DeadLetterHead:
    """What lists show of a letter; `attempts` are entries of its history, times are seconds since the epoch.

    Attributes:
        requeueable: Whether it is a task, and no message that could not be decoded.
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
        """The name under which it is counted."""
        return f"{self.queue}\x1f{self.code}"

    @property
    def position(self) -> Position:
        """Its place in the index."""
        return Position(at=self.at, id=self.id.encode())

    def to_json(self) -> bytes:
        """The stored form, without the id."""
        return strict_json({name: value for name, value in vars(self).items() if name != "id"})

    @classmethod
    def parse(cls, letter_id: str, stored: bytes) -> "DeadLetterHead":
        """From the stored form; fields of later versions are ignored."""
        known = cls.__dataclass_fields__
        return cls(id=letter_id, **{name: value for name, value in orjson.loads(stored).items() if name in known})


@dataclass(frozen=True, kw_only=True)
class DeadLetterFilter:
    """Which letters are meant; what is None lets everything through.

    Attributes:
        queue: Where they came from.
        task: Their registered name.
        code: Their error code.
        since: Put aside at or after this time, seconds since the epoch.
        until: Put aside before this time.
        error: Part of the error message, in any case.
    """

    queue: str | None = None
    task: str | None = None
    code: str | None = None
    since: float | None = None
    until: float | None = None
    error: str | None = None

    @property
    def names_some(self) -> bool:
        """Whether it leaves anything out."""
        return any(value is not None for value in vars(self).values())

    @property
    def start(self) -> Position:
        """The place before the newest letter that may fit."""
        return START if self.until is None else Position(at=self.until, id=b"")

    def fits(self, head: DeadLetterHead) -> bool:
        """Whether the letter is meant; its time is seen to by where the walk begins and ends."""
        wanted = ((self.queue, head.queue), (self.task, head.task), (self.code, head.code))
        if any(asked is not None and asked != has for asked, has in wanted):
            return False
        return self.error is None or self.error.casefold() in head.error.casefold()


class DeadLetterPage(NamedTuple):
    """Some letters, and where to go on; None at the end."""

    heads: list[DeadLetterHead]
    cursor: str | None
