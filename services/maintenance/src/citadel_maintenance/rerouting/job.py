"""One run of `citadel.reroute_messages`: finds lists that no worker reads, and moves their messages into the lanes.

Lists are found by SCAN, which asks Redis for lists only. Messages are moved unchanged, oldest first, each batch by one
script. So a run that is killed loses none, moves none twice, and leaves their order as it was.
"""

import functools
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import ResponseError

from citadel_common.delivery.misrouted import MisroutedList, MisroutedLists
from citadel_common.telemetry import Metrics, names
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.rerouting.addresses import Address, address_in
from citadel_maintenance.rerouting.findings import BINDINGS, LANES, Finding, finding_of, lane_of, of_another_database
from citadel_maintenance.rerouting.lists import FoundElsewhere, Lists
from citadel_maintenance.scanning import scan_lists, server_of

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
MOST_LEFT = 1000
"""Old messages that are not ours in a list of ours, after which the rest of the list is left alone as well."""


class Rerouting:
    """One run.

    Args:
        job: The run of the task.
        client: Client of the broker's Redis.
        metrics: Where moved messages are counted.
        count: Keys examined per batch.
    """

    def __init__(self, job: Job, client: "Redis", metrics: Metrics, *, count: int) -> None:
        self._job = job
        self._client = client
        self._metrics = metrics
        self._count = count
        self._lists = Lists(client)
        self._position = self._saved_position()
        self._findings = MisroutedLists(client, self._position["scan"])
        self._bindings = functools.cache(self._read_bindings)

    def _saved_position(self) -> dict[str, Any]:
        saved, server = self._job.cursor.load(), server_of(self._client)
        return saved if saved.get("server") == server else {"server": server, "cursor": 0, "scan": uuid.uuid4().hex}

    def _read_bindings(self, exchange: str) -> set[bytes]:
        try:
            found: Any = self._client.smembers(BINDINGS + exchange)
        except ResponseError:  # another program's key of that name
            return set()
        return set(found)

    def run(self) -> bool:
        """Examine the lists of every database; return whether that was all."""
        for _ in self._job.throttle.batches():
            keys, cursor = scan_lists(self._client, cursor=self._position["cursor"], count=self._count)
            for key in keys:
                self._guarded(key)
            if self._job.throttle.stop_reason is not None:
                break  # perhaps in the middle of a list, so the next run begins with these keys
            self._position["cursor"] = cursor
            if cursor == 0:
                return self._finish()
            self._job.cursor.save(self._position)
        self._job.cursor.save(self._position, now=True)
        return False

    def _finish(self) -> bool:
        self._look_elsewhere()
        self._job.cursor.clear()
        if not self._job.dry_run:
            self._findings.forget_older(self._now())
        return True

    def _guarded(self, key: str) -> None:
        """Examine a list; what Redis refuses (a full Redis, a lane's key of a wrong type) must not hide the others."""
        self._job.counters.examined += 1
        try:
            if key not in LANES:
                self._examine(key)
        except ResponseError as error:
            self._job.counters.notes.append(f"{key!r}: {error}")

    def _examine(self, key: str) -> None:
        addresses = [found for entry in self._lists.oldest(key) if (found := address_in(entry)) is not None]
        decided = [(finding, each) for each in addresses if (finding := finding_of(key, each, self._bindings))]
        if not decided:
            return
        finding, address = next((pair for pair in decided if pair[0].is_ours), decided[0])
        moved = self._move(key, finding) if finding.is_ours else 0
        left = self._lists.length(key)
        self._job.counters.add(finding.reason, found=moved or left, repaired=moved)
        self._report(key, self._lists.database, finding, address, messages=left, moved=moved)

    def _move(self, key: str, finding: Finding) -> int:
        """Move the messages of a list that are ours, and leave the others; return how many were moved."""
        moved = left = 0
        for _ in self._job.throttle.batches():
            entries = self._lists.oldest(key, skip=left + moved * self._job.dry_run)
            if not entries or left >= MOST_LEFT:
                break
            lanes = [self._lane_of(key, entry, finding) for entry in entries]
            others = lanes.count(None)
            if self._job.dry_run:
                moved += len(entries) - others
            else:
                moved += self._lists.move(key, entries, lanes, finding.queue, skip=left)
            left += others
        return moved

    def _lane_of(self, key: str, entry: bytes, finding: Finding) -> str | None:
        address = address_in(entry)
        if address is None:
            return None
        own = finding_of(key, address, self._bindings)
        return lane_of(finding.queue, address.priority) if own is not None and own.is_ours else None

    def _look_elsewhere(self) -> None:
        """Report messages in the workers' lists of other databases; some servers and users have no other database."""
        try:
            found = [(number, one) for number in self._lists.other_databases() for one in self._elsewhere(number)]
        except ResponseError as error:
            self._job.counters.notes.append(f"other databases were not examined: {error}")
            return
        for number, one in found:
            address = address_in(one.oldest)
            finding = None if address is None else of_another_database(number, self._lists.database, address)
            if address is not None and finding is not None:
                self._job.counters.add(finding.reason, found=one.messages)
                self._report(one.key, number, finding, address, messages=one.messages, moved=0)

    def _elsewhere(self, database: int) -> Sequence[FoundElsewhere]:
        return self._lists.elsewhere(database, list(LANES))

    def _report(
        self, key: str, database: int, finding: Finding, address: Address, *, messages: int, moved: int
    ) -> None:
        """Store the finding, log it, and count moved messages."""
        if self._job.dry_run:
            return
        found = MisroutedList(
            key=key, database=database, queue=finding.queue.value, task=address.spec.name, messages=messages,
            moved=moved, reason=finding.reason, help=finding.help, at=self._now(),
        )  # fmt: skip
        if moved:
            self._metrics.count(names.REROUTED, moved, queue=found.queue, reason=found.reason)
        if self._findings.add(found) or moved:
            log.warning("messages_misrouted", **vars(found))

    def _now(self) -> float:
        seconds, microseconds = self._client.time()
        return float(seconds + microseconds / 1e6)
