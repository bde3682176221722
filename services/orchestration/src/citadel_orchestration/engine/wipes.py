"""Notices that the broker was emptied: what was published before is lost then, and is sent again at once."""

import uuid
from typing import TYPE_CHECKING

from citadel_common.stores.redis import ERRORS

if TYPE_CHECKING:
    from redis import Redis

KEY = "citadel:broker:epoch"


class Wipes:
    """A mark in the broker that an emptied one lacks; `client` is a client of it."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._seen: bytes | None = None

    def __call__(self) -> bool:
        """Whether the mark has changed since the last look; False while the broker does not answer."""
        try:
            self._client.set(KEY, uuid.uuid4().hex, nx=True)
            mark: bytes | None = self._client.get(KEY)  # type: ignore[assignment]  # the client is not an async one
        except ERRORS:
            return False
        before, self._seen = self._seen, mark
        return before is not None and before != mark
