"""Makes the messages of periodic tasks: what Celery would publish, as text for the ledger to put on the list.

Celery runs its whole course (routes, signals, headers); only its last step, which would send the message to the
broker, hands it over instead.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu import Connection
from kombu.transport import virtual

from citadel_common.delivery import serializer
from citadel_common.delivery.queues import lists_of
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from citadel_maintenance.beat.entry import Entry
from citadel_maintenance.beat.ledger import Parcel

if TYPE_CHECKING:
    from celery import Celery

SLOT_HEADER = "citadel_slot"
"""Message header: the entry and the slot that a periodic task is run for."""
_LANE_STEP = 3


class Messages:
    """Makes messages; for one thread."""

    def __init__(self, settings: CommonSettings) -> None:
        self._app: Celery = create_app(settings)
        self._made: list[dict[str, Any]] = []
        self._connection = Connection(transport=_Transport, transport_options={"hand_over": self._made.append})

    def parcel(self, entry: Entry, slot: int) -> Parcel:
        """The message of an entry's slot."""
        self._made.clear()
        self._app.send_task(
            entry.spec.name,
            kwargs=entry.kwargs,
            task_id=entry.task_id(slot),
            priority=entry.lane.value,
            expires=entry.life(slot),
            headers={SLOT_HEADER: entry.label(slot)},
            ignore_result=True,
            connection=self._connection,
        )
        [message] = self._made
        return Parcel(list_name=lists_of(entry.spec.queue)[entry.lane // _LANE_STEP], message=serializer.dumps(message))


class _Channel(virtual.Channel):  # type: ignore[misc]  # kombu publishes no types
    """Keeps nothing; a message goes to the transport option `hand_over`."""

    def _put(self, _: str, message: dict[str, Any], **__: Any) -> None:
        hand_over: Callable[[dict[str, Any]], None] = self.connection.client.transport_options["hand_over"]
        hand_over(message)

    def _size(self, _: str) -> int:
        return 0


class _Transport(virtual.Transport):  # type: ignore[misc]
    """A broker that is never reached."""

    Channel = _Channel
    driver_type = driver_name = "none"
