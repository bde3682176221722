"""The way to a Qdrant, wherever it runs."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from citadel_common.settings.qdrant import QdrantSettings


class Connection(Protocol):
    """A server's client, or the embedded engine; both know the same methods by the same names."""

    async def call(self, method: str, *, collection: str = "", timeout: float, **arguments: Any) -> Any:
        """The answer of the client's method, called for a collection where one is named.

        Raises:
            VectorStoreUnavailable: It may pass: no answer within `timeout` seconds, or a failing store.
            VectorStoreRefused: It will not.
            NotFound: There is no such collection.
            Conflict: There is one already.
        """

    async def ready(self, *, timeout: float) -> None:
        """Returns when the store can work.

        Raises:
            VectorStoreUnavailable: It cannot, or does not say so within `timeout` seconds.
        """

    async def aclose(self) -> None:
        """Releases connections, files and threads."""


def connect(settings: "QdrantSettings") -> Connection:
    """The connection that the settings name; takes a second where the client is not imported yet."""
    from citadel_orchestration.vectors.embedded import EmbeddedConnection
    from citadel_orchestration.vectors.server import ServerConnection

    return EmbeddedConnection(settings.path) if settings.url is None else ServerConnection(settings)


def in_collection(collection: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a client's method, with the collection as it wants it."""
    return arguments | {"collection_name": collection} if collection else arguments
