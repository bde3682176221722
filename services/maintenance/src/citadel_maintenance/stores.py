"""Redis clients of maintenance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import connect

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True, kw_only=True)
class Stores:
    """One client per role; several roles may be on one server.

    Attributes:
        broker: Queues and the worker registry.
        results: Results, accepted tasks, dead letters.
        cache: Vectors.
        queues: Broker and results by name; only the broker if both are the same.
    """

    broker: "Redis"
    results: "Redis"
    cache: "Redis"
    queues: "dict[str, Redis]"

    @classmethod
    def connect(cls, settings: CommonSettings) -> Self:
        """Return clients, which connect at first use."""
        broker, results = connect(settings.broker_url, settings.stores), connect(settings.results, settings.stores)
        is_one = settings.broker_url.get_secret_value() == settings.results.get_secret_value()
        return cls(
            broker=broker,
            results=results,
            cache=connect(settings.cache_store, settings.stores),
            queues={"broker": broker} if is_one else {"broker": broker, "results": results},
        )

    def close(self) -> None:
        """Close all connections."""
        for client in (self.broker, self.results, self.cache):
            client.close()
