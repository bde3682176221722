"""Messages of periodic tasks: what Celery would publish, as text that the ledger pushes to the queue's list.

Celery builds the message completely (routes, signals, headers). Only the last step, sending it to the broker, is
replaced: the transport here hands the message over instead.
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
from citadel_maintenance.beat.ledger import Message

if TYPE_CHECKING:
    from celery import Celery

SLOT_HEADER = "citadel_slot"
"""Message header: the entry and the slot that a periodic task runs for."""
_LANE_STEP = 3


class MessageFactory:
    """Builds messages; for one thread."""

    def __init__(self, settings: CommonSettings) -> None:
        self._app: Celery = create_app(settings)
        self._built: list[dict[str, Any]] = []
        self._connection = Connection(transport=_Transport, transport_options={"hand_over": self._built.append})

    def build(self, entry: Entry, slot: int) -> Message:
        """Return the message of an entry's slot."""
        self._built.clear()
        self._app.send_task(
            entry.spec.name,
            kwargs=entry.kwargs,
            task_id=entry.task_id(slot),
            priority=entry.lane.value,
            expires=entry.expiry(slot),
            headers={SLOT_HEADER: entry.label(slot)},
            ignore_result=True,
            connection=self._connection,
        )
        [message] = self._built
        return Message(list_name=lists_of(entry.spec.queue)[entry.lane // _LANE_STEP], text=serializer.dumps(message))


class _Channel(virtual.Channel):  # type: ignore[misc]  # kombu publishes no types
    """A channel that stores nothing: messages go to the transport option `hand_over`."""

    def _put(self, _: str, message: dict[str, Any], **__: Any) -> None:
        hand_over: Callable[[dict[str, Any]], None] = self.connection.client.transport_options["hand_over"]
        hand_over(message)

    def _size(self, _: str) -> int:
        return 0


class _Transport(virtual.Transport):  # type: ignore[misc]
    """A transport without a broker."""

    Channel = _Channel
    driver_type = driver_name = "none"
