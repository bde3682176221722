"""Interface of connections to Qdrant, to a server or to the embedded engine."""

from typing import Any, Protocol


class Connection(Protocol):
    """Connection to Qdrant; server and embedded engine have the same methods."""

    async def call(self, method: str, *, collection: str = "", timeout: float, **arguments: Any) -> Any:
        """Call a method of the client, for a collection if one is named, and return its answer.

        Raises:
            Outage: The store is away, with a VectorStoreUnavailable; it took nothing, or only what may be repeated.
            VectorStoreUnavailable: The store fails, or does not answer within `timeout` seconds; a retry may help.
            VectorStoreRefused: The store refuses the call.
            NotFound: There is no such collection.
            Conflict: The collection exists already.
        """

    async def ready(self, *, timeout: float) -> None:
        """Check that the store is ready.

        Raises:
            VectorStoreUnavailable: It is not ready, or does not answer within `timeout` seconds.
        """

    async def aclose(self) -> None:
        """Release connections, files and threads."""


def in_collection(collection: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client's method with the collection, if one is named."""
    return arguments | {"collection_name": collection} if collection else arguments
