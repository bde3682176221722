"""What a server's client and the embedded engine of Qdrant have in common."""

from typing import Any, Protocol


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


def in_collection(collection: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a client's method, with the collection as it wants it."""
    return arguments | {"collection_name": collection} if collection else arguments
