"""Clean-up of the embedding cache: a sweep that removes unreachable entries, then eviction down to the budget.

Only keys of the cache's own form are touched: a Redis that is shared with queues or other programs keeps theirs.
Eviction follows if the sweep finds the cache over `cache_max_bytes`. It removes the entries that were not used for
longest (by Redis' idle time, or by use count under an LFU policy), coldest bucket first, until the excess is gone. A
run that was cut off goes on where it stopped, as long as the server's process is the same.
"""

from typing import TYPE_CHECKING, Any

from citadel_contracts.maintenance import CacheStatistics
from citadel_maintenance.cache.classification import OVER_BUDGET, Classification, classify
from citadel_maintenance.cache.entries import CacheEntries, CacheEntry
from citadel_maintenance.cache.models import LiveModels
from citadel_maintenance.cache.sizes import Sizes
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.scanning import server_of

if TYPE_CHECKING:
    from redis import Redis

Classified = tuple[CacheEntry, Classification]


class CacheCleanup:
    """One run of `cleanup_expired_cache`.

    Args:
        job: The run of the task.
        client: Client of the cache.
        models: The models that are alive.
        count: Keys examined per batch.
        budget: Bytes the cache may hold; None for no limit.
    """

    def __init__(self, job: Job, client: "Redis", models: LiveModels, *, count: int, budget: int | None) -> None:
        self._job = job
        self._models = models
        self._budget = budget
        self._entries = CacheEntries(client, count=count, coldness=budget is not None)
        self._server = server_of(client)
        saved = job.cursor.load()
        self._saved: dict[str, Any] = saved if saved.get("server") == self._server else {}
        self._sizes = Sizes.from_json(self._saved.get("sizes", {}))
        self._complete = False

    @property
    def statistics(self) -> CacheStatistics:
        """Statistics of the cache, as far as it was examined."""
        return self._sizes.statistics(complete=self._complete)

    def run(self) -> bool:
        """Sweep and evict; return whether both reached their end."""
        self._models.refresh()
        evicting = self._saved.get("evicting")
        self._complete = evicting is not None or self._sweep(self._saved.get("cursor", 0))
        finished = self._complete and self._evict(evicting)
        if self._models.undecided is not None:
            self._job.counters.notes.append(self._models.undecided)
        if finished:
            self._job.cursor.clear()
        return finished

    def _sweep(self, cursor: int) -> bool:
        for _ in self._job.throttle.batches():
            entries, cursor = self._entries.scan(cursor)
            self._models.refresh()
            self._process(entries)
            self._save(cursor, now=False)
            if cursor == 0:
                return True
        self._save(cursor, now=True)
        return False

    def _process(self, entries: list[CacheEntry]) -> None:
        self._job.counters.examined += len(entries)
        classified = [(entry, classify(entry.key, entry.ttl, self._models)) for entry in entries]
        self._sample_sizes(classified)
        going: dict[str, list[Classified]] = {}
        for entry, found in classified:
            if found.kind is not None:
                going.setdefault(found.kind, []).append((entry, found))
            elif found.group is not None:
                self._sizes.add_kept(found.group, entry.bucket)
        for kind, some in going.items():
            self._remove(kind, some)

    def _sample_sizes(self, classified: list[Classified]) -> None:
        """Measure one entry of each group."""
        samples = {found.group: entry.key for entry, found in classified if found.group is not None}
        for group, size in zip(samples, self._entries.sizes(list(samples.values())), strict=True):
            if size:
                self._sizes.add_sample(group, size)

    def _remove(self, kind: str, going: list[Classified]) -> None:
        """Remove entries, or only count them in a dry run."""
        removed = len(going) if self._job.dry_run else self._entries.remove([entry.key for entry, _ in going])
        size = sum(self._sizes.mean(found.group) for _, found in going if found.group is not None)
        freed = round(size * removed / len(going))
        self._job.counters.add(kind, found=len(going), removed=removed, bytes_freed=freed)

    def _evict(self, saved: dict[str, Any] | None) -> bool:
        """Remove the coldest entries until the budget is kept; `saved` is where an earlier run stopped."""
        if self._budget is None:
            return True
        place = saved or {"cursor": 0, "excess": self._sizes.total - self._budget}
        if place["excess"] <= 0:
            return True
        if "bucket" not in place:
            place["bucket"], place["within"] = self._sizes.threshold(place["excess"])
        for _ in self._job.throttle.batches():
            entries, place["cursor"] = self._entries.scan(place["cursor"])
            self._evict_coldest(entries, place)
            self._save(0, now=False, evicting=place)
            if place["cursor"] == 0 or place["excess"] <= 0:
                return True
        self._save(0, now=True, evicting=place)
        return False

    def _evict_coldest(self, entries: list[CacheEntry], place: dict[str, Any]) -> None:
        """Remove all entries colder than the threshold's bucket, and from that bucket as many bytes as needed."""
        chosen: list[Classified] = []
        for entry in entries:
            found = classify(entry.key, entry.ttl, self._models)
            if found.group is None or found.kind is not None or not _is_chosen(entry, place):
                continue
            size = self._sizes.mean(found.group)
            place["excess"] -= size
            place["within"] -= size if entry.bucket == place["bucket"] else 0
            self._sizes.evicted(found.group)
            chosen.append((entry, found))
        if chosen:
            self._remove(OVER_BUDGET, chosen)

    def _save(self, cursor: int, *, now: bool, evicting: dict[str, Any] | None = None) -> None:
        position = {"server": self._server, "cursor": cursor, "sizes": self._sizes.to_json()}
        self._job.cursor.save(position if evicting is None else position | {"evicting": evicting}, now=now)


def _is_chosen(entry: CacheEntry, place: dict[str, Any]) -> bool:
    if entry.bucket is None or place["excess"] <= 0:
        return False
    return bool(entry.bucket > place["bucket"] or (entry.bucket == place["bucket"] and place["within"] > 0))
