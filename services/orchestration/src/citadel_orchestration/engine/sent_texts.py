"""Texts that were sent to the embeddings workers, and which of them have to be sent again.

Texts that wait in a queue are not sent again, however long they wait: that would make the queue longer. They are when
the broker is known to have neither their message nor their answer. An answer that an engine has taken from its list is
known to nobody for a moment, so texts must be missing twice, unless the broker has lost data.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.delivery.tracked_messages import TrackedMessages
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_contracts import Queue
from citadel_contracts.workflows import EMBEDDED, embedding_name
from citadel_orchestration.db.models import StepClaim, StepRef
from citadel_orchestration.engine.in_flight import StepsInFlight

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)


def name_of(ref: StepRef, attempt: int) -> str:
    """Return the name by which the texts of an attempt are tracked."""
    return embedding_name(str(ref.run_id), ref.step_id, ref.item, attempt)


class SentTexts:
    """The texts that the steps of a fleet have sent.

    Args:
        client: Client of the broker's Redis.
        metrics: Counts what is to be sent again.
    """

    def __init__(self, client: "Redis", metrics: Metrics = NULL_METRICS) -> None:
        self._client = client
        self._tracked = TrackedMessages(client, [Queue.EMBEDDINGS])
        self._metrics = metrics

    def on_the_way(self, attempts: Sequence[tuple[StepRef, int]]) -> list[tuple[StepRef, int]]:
        """Return the attempts whose texts or vectors are in the broker; none while it does not answer."""
        try:
            missing = set(self._tracked.missing([name_of(*attempt) for attempt in attempts]))
        except ERRORS as error:
            log.warning("texts_not_seen", error=type(error).__name__)
            return []
        return [attempt for attempt in attempts if name_of(*attempt) not in missing]

    def lost(self, in_flight: StepsInFlight, *, everything: bool) -> list[StepClaim]:
        """Return the steps in flight whose texts have to be sent again; none while the broker does not answer.

        Args:
            in_flight: The steps.
            everything: The broker may have lost data: look at all of them now.
        """
        due = {name_of(claim.ref, claim.attempt): claim for claim in in_flight.to_look_at(everything=everything)}
        try:
            missing = set(self._tracked.missing(list(due)))
            waiting: Any = self._client.llen(EMBEDDED) if missing else 0
        except ERRORS as error:
            log.warning("texts_not_seen", error=type(error).__name__)
            return []
        lost = []
        for name, claim in due.items():
            reason = in_flight.looked_at(claim, missing=name in missing and not waiting, at_once=everything)
            if reason is not None:
                self._metrics.count(names.RESENDS, 1, kind="texts", reason=reason)
                lost.append(claim)
        if lost:
            log.warning("texts_sent_again", steps=len(lost))
        return lost
