"""Clean-up of the embedding cache: a walk that removes what nobody can ask for, then one that keeps the size budget.

Only keys of the cache's own form are touched: a Redis shared with queues or other programs keeps theirs. The second
walk takes place where the first found the cache to be over `cache_max_bytes`: it removes the entries that were not
used for longest (by Redis' idle time, or use count under an LFU policy), bucket by bucket, until the excess is gone.
A cut-off walk is taken up again where it ended, as long as the server's process is the same.
"""

from typing import TYPE_CHECKING, Any

from citadel_contracts.maintenance import CacheStatistics
from citadel_maintenance.cache.entries import Entries, Facts
from citadel_maintenance.cache.models import LiveModels
from citadel_maintenance.cache.rules import OVER_BUDGET, Ruling, rule
from citadel_maintenance.cache.sizes import Sizes
from citadel_maintenance.scanning import server_of
from citadel_maintenance.upkeep import Job

if TYPE_CHECKING:
    from redis import Redis


class CacheCleanup:
    """One run.

    Args:
        job: Pace, counts, place.
        client: Client of the cache.
        models: Which models are alive.
        count: Keys looked at per step.
        budget: Bytes the cache may hold; None for any.
    """

    def __init__(self, job: Job, client: "Redis", models: LiveModels, *, count: int, budget: int | None) -> None:
        self._job = job
        self._models = models
        self._budget = budget
        self._entries = Entries(client, count=count, coldness=budget is not None)
        self._server = server_of(client)
        saved = job.lap.load()
        self._saved: dict[str, Any] = saved if saved.get("server") == self._server else {}
        self._sizes = Sizes.from_json(self._saved.get("sizes", {}))
        self._complete = False

    @property
    def statistics(self) -> CacheStatistics:
        """What the cache holds, as far as it was looked at."""
        return self._sizes.statistics(complete=self._complete)

    def run(self) -> bool:
        """Both walks; whether they got to the end."""
        self._models.look()
        evicting = self._saved.get("evicting")
        self._complete = evicting is not None or self._sweep(self._saved.get("cursor", 0))
        finished = self._complete and self._evict(evicting)
        if self._models.unjudged is not None:
            self._job.tallies.note(self._models.unjudged)
        if finished:
            self._job.lap.end()
        return finished

    def _sweep(self, cursor: int) -> bool:
        while self._job.pace.goes_on():
            with self._job.pace.batch():
                facts, cursor = self._entries.step(cursor)
                self._models.look()
                self._judge(facts)
                self._save(cursor, now=False)
            if cursor == 0:
                return True
        self._save(cursor, now=True)
        return False

    def _judge(self, facts: list[Facts]) -> None:
        self._job.tallies.examined += len(facts)
        ruled = [(fact, rule(fact.key, fact.ttl, self._models)) for fact in facts]
        self._measure(ruled)
        going: dict[str, list[tuple[str, Ruling]]] = {}
        for fact, ruling in ruled:
            if ruling.kind is not None:
                going.setdefault(ruling.kind, []).append((fact.key, ruling))
            elif ruling.group is not None:
                self._sizes.keep(ruling.group, fact.bucket)
        for kind, entries in going.items():
            self._remove(kind, entries)

    def _measure(self, ruled: list[tuple[Facts, Ruling]]) -> None:
        """Asks for the size of one entry of each group."""
        wanted = {ruling.group: fact.key for fact, ruling in ruled if ruling.group is not None}
        for group, size in zip(wanted, self._entries.sizes(list(wanted.values())), strict=True):
            if size:
                self._sizes.measured(group, size)

    def _remove(self, kind: str, entries: list[tuple[str, Ruling]]) -> None:
        """Removes entries of a kind, unless this is a dry run."""
        tally = self._job.tallies.of(kind)
        tally.examined += len(entries)
        removed = len(entries) if self._job.dry_run else self._entries.remove([key for key, _ in entries])
        size = sum(self._sizes.mean(ruling.group) for _, ruling in entries if ruling.group is not None)
        tally.removed += removed
        tally.bytes_freed += round(size * removed / len(entries))

    def _evict(self, saved: dict[str, Any] | None) -> bool:
        """Removes the coldest entries until the budget is kept; `saved` is where an earlier run ended."""
        if self._budget is None:
            return True
        place = saved or {"cursor": 0, "excess": self._sizes.total - self._budget}
        if place["excess"] <= 0:
            return True
        if "bucket" not in place:
            place["bucket"], place["within"] = self._sizes.threshold(place["excess"])
        while self._job.pace.goes_on():
            with self._job.pace.batch():
                facts, place["cursor"] = self._entries.step(place["cursor"])
                self._evict_coldest(facts, place)
                self._save(0, now=False, evicting=place)
            if place["cursor"] == 0 or place["excess"] <= 0:
                return True
        self._save(0, now=True, evicting=place)
        return False

    def _evict_coldest(self, facts: list[Facts], place: dict[str, Any]) -> None:
        """Entries beyond the bucket all go; of those in it, as many bytes as are needed."""
        chosen = []
        for fact in facts:
            ruling = rule(fact.key, fact.ttl, self._models)
            if ruling.group is None or ruling.kind is not None or not self._is_chosen(fact, place):
                continue
            size = self._sizes.mean(ruling.group)
            place["excess"] -= size
            place["within"] -= size if fact.bucket == place["bucket"] else 0
            self._sizes.evicted(ruling.group)
            chosen.append((fact.key, ruling))
        if chosen:
            self._remove(OVER_BUDGET, chosen)

    def _is_chosen(self, fact: Facts, place: dict[str, Any]) -> bool:
        if fact.bucket is None or place["excess"] <= 0:
            return False
        return bool(fact.bucket > place["bucket"] or (fact.bucket == place["bucket"] and place["within"] > 0))

    def _save(self, cursor: int, *, now: bool, evicting: dict[str, Any] | None = None) -> None:
        state = {"server": self._server, "cursor": cursor, "sizes": self._sizes.to_json()}
        self._job.lap.save(state if evicting is None else state | {"evicting": evicting}, now=now)
