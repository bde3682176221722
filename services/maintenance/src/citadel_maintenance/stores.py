"""The Redis servers that maintenance works on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import connect

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True, kw_only=True)
class Stores:
    """One client of each; they may be the same server.

    Attributes:
        broker: Queues, and who serves them.
        results: Results, accepted tasks, dead letters.
        cache: Vectors.
        queues: Broker and results by name, once if they are the same.
    """

    broker: "Redis"
    results: "Redis"
    cache: "Redis"
    queues: "dict[str, Redis]"

    @classmethod
    def connect(cls, settings: CommonSettings) -> Self:
        """Clients that connect when they are first used."""
        broker, results = connect(settings.broker_url, settings.stores), connect(settings.results, settings.stores)
        is_one = settings.broker_url.get_secret_value() == settings.results.get_secret_value()
        return cls(
            broker=broker,
            results=results,
            cache=connect(settings.cache_store, settings.stores),
            queues={"broker": broker} if is_one else {"broker": broker, "results": results},
        )

    def close(self) -> None:
        """Closes all connections."""
        for client in (self.broker, self.results, self.cache):
            client.close()
