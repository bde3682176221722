"""Steps of SCAN, HSCAN and ZSCAN through a Redis."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis


def scan(client: "Redis", pattern: str, *, cursor: int, count: int) -> tuple[list[str], int]:
    """Return the next keys that match a pattern, and the cursor after them; 0 at the end.

    Redis examines about `count` keys of any name per step, so a step may return none before the end. A key that exists
    throughout is returned at least once, and may be returned twice.
    """
    answer: Any = client.scan(cursor, match=pattern, count=count)
    next_cursor, keys = answer
    return [_text(key) for key in keys], int(next_cursor)


def scan_lists(client: "Redis", *, cursor: int, count: int) -> tuple[list[str], int]:
    """Return the next keys that are lists, and the cursor after them, as `scan` does; without names of other bytes."""
    answer: Any = client.scan(cursor, count=count, _type="list")
    next_cursor, keys = answer
    return [text for key in keys if (text := _utf8(key)) is not None], int(next_cursor)


def scan_key(client: "Redis", key: str, kind: str, *, count: int) -> Iterator[list[str]]:
    """Yield the fields of a hash (`kind` is `hash`) or the members of a sorted set (`zset`), some at a time."""
    cursor = 0
    while True:
        answer: Any = (
            client.hscan(key, cursor, count=count) if kind == "hash" else client.zscan(key, cursor, count=count)
        )
        cursor, entries = answer
        yield [_text(entry if kind == "hash" else entry[0]) for entry in entries]
        if int(cursor) == 0:
            return


def server_of(client: "Redis") -> str:
    """Return the id of the server's process. A cursor is only valid on the process that gave it."""
    info: Any = client.info("server")
    return str(info.get("run_id", ""))


def _utf8(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")  # keys of other programs may hold any bytes
