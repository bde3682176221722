"""Which models are gone, so that their cached vectors may go too.

The catalogue is the workers' word, so nothing is judged by one that is absent (no worker lives), empty, or open (a
backend has not answered, or cannot list its models). A model that a clean-up saw not long ago is given time to come
back: one of several servers may be down just now.
"""

import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.embeddings.catalog import KEY as CATALOG_KEY
from citadel_common.embeddings.catalog import spellings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

SEEN = "citadel:maintenance:models"
"""Hash of model identity → when a clean-up last saw it in the catalogue, in seconds since the epoch."""
KEPT = 24 * 3600
"""Seconds for which that is kept beyond the grace, should no clean-up come."""
REFRESH = 5.0
"""Seconds between two looks at the catalogue."""


class LiveModels:
    """The models that count as alive during one clean-up: all that were in the catalogue at any look.

    Args:
        client: Client of the result store.
        keep: Names of models that stay whatever the catalogue says.
        grace: Seconds for which a model that was seen stays.
        record: Whether to note what is seen; not in a dry run.
    """

    def __init__(self, client: "Redis", *, keep: "Iterable[str]", grace: float, record: bool) -> None:
        self._client = client
        self._kept = {_in_key(spelling) for name in keep for spelling in spellings(name)}
        self._grace = grace
        self._record = record
        self._live: set[str] = set()
        self._look_at = 0.0
        self._lately: set[str] = set()
        self.unjudged: str | None = None

    def look(self) -> None:
        """Reads the catalogue, unless it was read a moment ago; after one that says nothing, nothing is judged."""
        if time.monotonic() < self._look_at:
            return
        first, self._look_at = self._look_at == 0.0, time.monotonic() + REFRESH
        stored: Any = self._client.get(CATALOG_KEY)
        document = {} if stored is None else orjson.loads(stored)
        self._live |= {model["identity"] for model in document.get("models", ())}
        self.unjudged = self.unjudged or _problem(document)
        if first and self.unjudged is None:
            self._remember()

    def is_gone(self, identity: str) -> bool:
        """Whether entries of that model may go.

        Another version of a model that is there has been replaced, and goes even if the model's name is to be kept.
        """
        if self.unjudged is not None or identity in self._live or identity in self._lately:
            return False
        name = identity.rpartition("@")[0]
        return name not in self._kept or any(live.rpartition("@")[0] == name for live in self._live)

    def _remember(self) -> None:
        now = time.time()
        seen: Any = self._client.hgetall(SEEN)
        old = [identity for identity, at in seen.items() if now - float(at) >= self._grace]
        self._lately = {identity.decode() for identity in seen.keys() - set(old)}
        if not self._record:
            return
        pipe = self._client.pipeline(transaction=False)
        if old:
            pipe.hdel(SEEN, *old)
        pipe.hset(SEEN, mapping=dict.fromkeys(self._live, now))
        pipe.expire(SEEN, int(self._grace) + KEPT)
        pipe.execute()


def _problem(document: dict[str, Any]) -> str | None:
    if not document:
        return "no embeddings worker tells which models there are, so no model counts as removed"
    if document.get("open", True):
        return "a backend does not tell which models it has, so no model counts as removed"
    if not document.get("models"):
        return "the embeddings workers know of no model, so none counts as removed"
    return None


def _in_key(name: str) -> str:
    """A model's name as identities have it."""
    return re.sub(r"[^\w.@/-]", "_", name)
