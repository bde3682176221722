"""The messages that this worker has taken and not acknowledged, and kombu's view of them.

Kombu removes each acknowledged message with a command of its own. Here those of the last few milliseconds are removed
together, or with the command that takes the next messages. A worker killed in between leaves finished tasks to be
delivered once more, which any at-least-once queue may do.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from kombu.asynchronous import get_event_loop
from kombu.transport import redis, virtual

from citadel_common.delivery import tracked_messages
from citadel_common.delivery.entries import step_in
from citadel_common.delivery.worker_messages import WorkerMessages
from citadel_common.stores.redis import ERRORS
from citadel_contracts import Lane

log = structlog.get_logger(__name__)
LONGEST_WAIT = 0.05
"""Most seconds until an acknowledged message is removed."""
MOST_AT_ONCE = 1000
"""Messages that one command takes at most."""
_SAFE_PART = 0.9
"""Part of `dead_after` in which no peer can take a worker for dead, whatever its heartbeat's way took."""


class WorkerLease:
    """Whether peers may have taken this worker for dead since a moment, known without asking them.

    Each heartbeat renews it. A worker that was stopped, or cut off from Redis, for about `dead_after` has lost it.
    """

    def __init__(self, dead_after: float) -> None:
        self._length = dead_after * _SAFE_PART
        self._renewed_at = float("-inf")
        self._term = 0
        self._lock = threading.Lock()

    def renewed(self, at: float) -> None:
        """Note a heartbeat; `at` is the time before it was sent, by `now`."""
        with self._lock:
            if at - self._renewed_at > self._length:
                self._term += 1
            self._renewed_at = max(at, self._renewed_at)

    @property
    def term(self) -> int | None:
        """A number that changes whenever the lease was lost in between; None while it is lost."""
        with self._lock:
            return self._term if self.now() - self._renewed_at <= self._length else None

    @staticmethod
    def now() -> float:
        """Return a time that goes on while the machine sleeps."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Holdings:
    """The messages of this process that are taken and not acknowledged, whatever connection they came by.

    The consumer's thread changes it; `submit`, `begin` and `drop` may be called by any thread.

    Attributes:
        worker_id: The worker's id.
        queue: Name of its queue.
        most_batch: Messages of the batch lane that it holds at most.
        lease: The lease on them.
        peers: Workers of the queue, this one included.
        announce: Sends a heartbeat at once.
        stopping: Returns whether the process is stopping.
        on_forgotten: Called with the number of messages that were found held and forgotten.
    """

    def __init__(self, worker_id: str, queue: str, *, most_batch: int, lease: WorkerLease) -> None:
        self.worker_id = worker_id
        self.queue = queue
        self.most_batch = most_batch
        self.lease = lease
        self.peers = 1
        self.announce: Callable[[], object] = lambda: None
        self.stopping: Callable[[], bool] = lambda: False
        self.on_forgotten: Callable[[int], None] = lambda _: None
        self.messages: WorkerMessages | None = None
        self.delivered: OrderedDict[str, Any] = OrderedDict()
        self.dirty: set[str] = set()
        self.done: list[str] = []
        self._marks: dict[str, list[tuple[str, str]]] = {}
        self._terms: dict[str, int | None] = {}
        self._submitted: set[str] = set()
        self._begun: set[str] = set()

    @property
    def batch_room(self) -> int:
        """How many more messages of the batch lane may be taken."""
        return self.most_batch - sum(_is_batch(tag) for tag in list(self.delivered) if tag not in self.dirty)

    def track(self, tag: str, message: dict[str, Any]) -> None:
        """Note the marks of a tracked message; they are removed after its acknowledgement."""
        names = tracked_messages.names_of(message.get("headers"))
        if names:
            self._marks[tag] = [(name, message["properties"]["delivery_tag"]) for name in names]

    def release_marks(self, tags: Sequence[str]) -> None:
        """Remove the marks of messages that were acknowledged: a message without one would be taken to be lost."""
        marks = [mark for tag in tags for mark in self._marks.pop(tag, ())]
        if not marks or self.messages is None:
            return
        try:
            self.messages.release_marks(marks)
        except ERRORS as error:
            log.info("marks_not_removed", marks=len(marks), error=type(error).__name__)

    def taken(self, tag: str, term: int | None) -> None:
        """Note a message that was taken in a term of the lease."""
        self._terms[tag] = term

    def submit(self, tag: str) -> None:
        """Note that the pool of threads has a message: from now on it is not forgotten."""
        self._submitted.add(tag)

    def begin(self, tag: str) -> bool:
        """Note that a task begins; return False if its message may be another worker's meanwhile.

        Redis is asked only if the lease was lost since the message was taken.
        """
        self._begun.add(tag)
        return self._still_holds(tag)

    def _still_holds(self, tag: str) -> bool:
        term = self.lease.term
        if term is not None and self._terms.get(tag) == term:
            return True
        try:
            if term is None:
                self.announce()
            return self.lease.term is not None and self.messages is not None and self.messages.holds(tag)
        except ERRORS:
            return False

    def drop(self, tag: str) -> None:
        """Stop working on a message without acknowledging it; if Redis still has it as held, it is given back."""
        self.ended(tag)
        loop = get_event_loop()
        if loop is not None:
            loop.call_soon(lambda: None)  # wakes the consumer, which has room for another one

    def drop_all_but_submitted(self) -> None:
        """Drop what Celery forgets when its connection is lost: what no thread runs or is to run."""
        for tag in list(self.delivered):
            if tag not in self._submitted:
                self.ended(tag)

    def ended(self, tag: str) -> None:
        """Note that nothing more is to be done with a message."""
        if tag in self.delivered:
            self.dirty.add(tag)
        if tag not in self.done:  # it stays in Redis, and so do its marks
            self._marks.pop(tag, None)
        self._terms.pop(tag, None)
        self._submitted.discard(tag)
        self._begun.discard(tag)

    def compare(self) -> None:
        """Give back what Redis has as held by this worker and this process does not have.

        Such are messages whose taking was answered on a connection that was lost, or that Celery has forgotten.
        """
        if self.messages is None:
            return
        known = {*self.done, *(tag for tag in list(self.delivered) if tag not in self.dirty)}
        forgotten = [tag for tag in self.messages.tags() if tag not in known]
        if not forgotten:
            return
        returned = self.messages.give_back(forgotten, redelivered=False)
        self.on_forgotten(returned)
        log.warning("forgotten_messages_returned", messages=returned)

    def give_all_back(self) -> None:
        """Give back everything that is held, when the process stops."""
        self.forget_done()
        if self.messages is None:
            return
        tags = set(self.messages.tags()) - set(self.done)
        self.messages.give_back(sorted(tags & self._begun), redelivered=True)
        self.messages.give_back(sorted(tags - self._begun), redelivered=False)
        self.messages.empty_inboxes()
        self.dirty.update(self.delivered)

    def forget_done(self) -> None:
        """Remove acknowledged messages now."""
        if not self.done or self.messages is None:
            return
        try:
            done = list(self.done)
            self.messages.acknowledge(done)
            del self.done[: len(done)]
            self.release_marks(done)
        except ERRORS as error:
            log.warning("acknowledgements_delayed", messages=len(self.done), error=type(error).__name__)


def _is_batch(tag: str) -> bool:
    step = step_in(tag)
    return step is not None and step >= Lane.BATCH


class HeldMessages(redis.QoS):  # type: ignore[misc]  # kombu publishes no types
    """Kombu's `QoS` of one channel of a worker. Only the consumer's thread calls it."""

    def __init__(self, channel: Any, prefetch_count: int = 0, *, holdings: Holdings) -> None:
        super().__init__(channel, prefetch_count)
        self._holdings = holdings
        # The tasks of a lost connection go on, and take up room of the next one.
        self._delivered, self._dirty = holdings.delivered, holdings.dirty
        self._quick_ack, self._quick_append = self._dirty.add, self._delivered.__setitem__
        self._timer_runs = False

    @property
    def room(self) -> int:
        """How many more messages may be taken."""
        room: int | None = self.can_consume_max_estimate()
        return MOST_AT_ONCE if room is None else min(room, MOST_AT_ONCE)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Add a message. One that was taken is noted in Redis already."""
        add = virtual.QoS.append if step_in(delivery_tag) is not None else redis.QoS.append
        add(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; it is removed within `LONGEST_WAIT`."""
        self._holdings.done.append(delivery_tag)
        self._holdings.ended(delivery_tag)
        loop = get_event_loop()
        if loop is None:
            self._holdings.forget_done()
        elif not self._timer_runs:
            self._timer_runs = True
            loop.call_later(LONGEST_WAIT, self._on_timer)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Acknowledge a message, or put it back behind all that waits."""
        if not requeue:
            self.ack(delivery_tag)
            return
        # If that fails, the next comparison with Redis gives it back.
        self._holdings.ended(delivery_tag)
        if self._holdings.messages is not None:
            self._holdings.messages.give_back([delivery_tag], redelivered=True, last=True)

    def forget(self, delivery_tag: str) -> None:
        """Free the place of a message that another script has moved away from this worker."""
        self._holdings.ended(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002  (kombu's signature)
        """Give back what is held if the process stops; after a lost connection, running tasks keep theirs."""
        self._on_collect.cancel()
        if not self._holdings.stopping():
            return
        try:
            self._holdings.give_all_back()
        except ERRORS as error:
            log.warning("messages_left_to_peers", error=type(error).__name__)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: who holds a message is known without a timeout."""

    def _on_timer(self) -> None:
        self._timer_runs = False
        self._holdings.forget_done()
