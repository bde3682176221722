"""Models whose cached vectors may be removed, because no backend has them any more.

The embeddings workers publish the catalogue of models. No model counts as removed by a catalogue that is absent (no
worker is alive), empty, or open (a backend has not answered, or cannot list its models). A model that a clean-up saw
recently has a grace period to come back: one of several servers may be down at the moment.
"""

import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.delivery.server_clock import ServerClock
from citadel_common.embeddings.catalog import KEY as CATALOG_KEY
from citadel_common.embeddings.catalog import spellings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

SEEN = "citadel:maintenance:models"
"""Hash of model identity → when a clean-up last saw it in the catalogue, in seconds since the epoch."""
KEPT = 24 * 3600
"""Seconds beyond the grace period after which that hash expires if no clean-up runs."""
REFRESH = 5.0
"""Seconds between two reads of the catalogue."""


class LiveModels:
    """The models that are alive during one clean-up: all that any of its reads of the catalogue contained.

    Attributes:
        undecided: Why no model counts as removed; None if removed models can be told.

    Args:
        client: Client of the result store.
        keep: Names of models that stay whatever the catalogue says.
        grace: Seconds for which a model that was seen stays.
        record: Whether to record which models are seen; not in a dry run.
    """

    def __init__(self, client: "Redis", *, keep: "Iterable[str]", grace: float, record: bool) -> None:
        self._client = client
        self._clock = ServerClock(client)
        self._kept = {_in_key(spelling) for name in keep for spelling in spellings(name)}
        self._grace = grace
        self._record = record
        self._live: set[str] = set()
        self._refresh_at = 0.0
        self._seen_recently: set[str] = set()
        self.undecided: str | None = None

    def refresh(self) -> None:
        """Read the catalogue, unless that was done less than REFRESH seconds ago."""
        if time.monotonic() < self._refresh_at:
            return
        first, self._refresh_at = self._refresh_at == 0.0, time.monotonic() + REFRESH
        stored: Any = self._client.get(CATALOG_KEY)
        document = {} if stored is None else orjson.loads(stored)
        self._live |= {model["identity"] for model in document.get("models", ())}
        self.undecided = self.undecided or _problem(document)
        if first and self.undecided is None:
            self._load_and_record_seen()

    def is_gone(self, identity: str) -> bool:
        """Return whether the entries of a model may go.

        Another version of a live model was replaced, so its entries go even if the model's name is to be kept.
        """
        if self.undecided is not None or identity in self._live or identity in self._seen_recently:
            return False
        name = identity.rpartition("@")[0]
        return name not in self._kept or any(live.rpartition("@")[0] == name for live in self._live)

    def _load_and_record_seen(self) -> None:
        now = self._clock.now()
        seen: Any = self._client.hgetall(SEEN)
        old = [identity for identity, at in seen.items() if now - float(at) >= self._grace]
        self._seen_recently = {identity.decode() for identity in seen.keys() - set(old)}
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
        return "no embeddings worker publishes its models, so no model counts as removed"
    if document.get("open", True):
        return "a backend does not list its models, so no model counts as removed"
    if not document.get("models"):
        return "the embeddings workers have no models, so no model counts as removed"
    return None


def _in_key(name: str) -> str:
    """Return a model's name as identities in keys spell it."""
    return re.sub(r"[^\w.@/-]", "_", name)
