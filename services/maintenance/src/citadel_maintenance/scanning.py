"""Walks over the keys of a Redis, some at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from redis import Redis


class Step(NamedTuple):
    """Some keys, and the cursor from which the walk goes on; 0 at its end."""

    keys: list[str]
    cursor: int


def scan(client: "Redis", pattern: str, *, cursor: int, count: int) -> Step:
    """The next keys that fit a pattern; each call looks at about `count` keys of any name.

    A key that is there all the time is seen at least once in a walk; one may be seen twice.
    """
    answer: Any = client.scan(cursor, match=pattern, count=count)
    following, keys = answer
    return Step(keys=[key.decode("utf-8", "surrogateescape") for key in keys], cursor=int(following))


def walk(client: "Redis", key: str, kind: str, *, count: int) -> Iterator[list[str]]:
    """The fields of a hash (`kind` is `hash`) or the members of a sorted set (`zset`), some at a time."""
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
    """Names the server's process: cursors of another one mean nothing."""
    info: Any = client.info("server")
    return str(info.get("run_id", ""))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
