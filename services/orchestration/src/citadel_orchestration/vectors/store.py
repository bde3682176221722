"""The vector store: collections of points, searched by vector."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import Conflict, NotFound, VectorStoreRefused
from citadel_common.outages import Outages
from citadel_common.settings.qdrant import QdrantSettings
from citadel_common.telemetry import spans, tracing
from citadel_orchestration.vectors.connection import Connection
from citadel_orchestration.vectors.filters import read_filter
from citadel_orchestration.vectors.points import Hit, Point

if TYPE_CHECKING:
    from qdrant_client.models import CollectionInfo, ScoredPoint, VectorParams

log = structlog.get_logger(__name__)

Distance = Literal["cosine", "dot", "euclid"]
CHUNK_POINTS = 100
CHUNK_FLOATS = 65_536
"""Limits of one write: about a megabyte of JSON, far below a server's limit and quickly encoded."""

_LISTED_AT_ONCE = 8


class VectorStore:
    """Client of a Qdrant server or the embedded engine; belongs to the event loop that first uses it.

    Every call to the store ends within the settings' timeout and by the given deadline. While a server is away, calls
    wait for it, for the settings' patience at most. All methods raise VectorStoreUnavailable for errors that a retry
    may help.

    Args:
        settings: Which store, and its limits.
        outages: Those of the process.

    Attributes:
        changed: Set whenever this store has created a collection.
    """

    def __init__(self, settings: QdrantSettings, outages: Outages | None = None) -> None:
        self._settings = settings
        self._server = (outages or Outages()).server("qdrant", patience=settings.patience)
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None
        self.changed = asyncio.Event()

    async def search(
        self,
        collection: str,
        vector: Sequence[float],
        *,
        limit: int = 10,
        conditions: Mapping[str, Any] | None = None,
        score_threshold: float | None = None,
        vector_name: str | None = None,
        with_payload: bool | Sequence[str] = True,
        deadline: Deadline | None = None,
    ) -> list[Hit]:
        """Return the points nearest to a vector, nearest first.

        Args:
            collection: Name of the collection.
            vector: Vector of the collection's length.
            limit: Most points.
            conditions: Filter, in a form that `read_filter` reads.
            score_threshold: Lowest score of a hit.
            vector_name: Which of a point's vectors; None for the unnamed one.
            with_payload: True for hits with their payload, or the keys of it that they have.
            deadline: When the call must have ended.

        Raises:
            NotFound: There is no such collection.
            VectorStoreRefused: The filter or the vector does not fit the collection.
        """
        found = await self._call(
            "query_points",
            collection,
            deadline,
            query=list(vector),
            using=vector_name,
            query_filter=await self._filter(conditions),
            limit=limit,
            score_threshold=score_threshold,
            with_payload=with_payload if isinstance(with_payload, bool) else list(with_payload),
        )
        return [_hit(point) for point in found.points]

    async def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        dimensions: int | None = None,
        vector_name: str | None = None,
        distance: Distance = "cosine",
        deadline: Deadline | None = None,
    ) -> int:
        """Store points, in place of those with the same ids; create a missing collection.

        Large lists are written in parts. After an error some points may be stored; repeating the call is safe.

        Args:
            collection: Name of the collection.
            points: Points with vectors of the same length; of two with the same id the last one is stored.
            dimensions: Length of the vectors; None takes that of the first one.
            vector_name: Which of a point's vectors; None for the unnamed one.
            distance: Distance of a collection that is created.
            deadline: When the call must have ended.

        Returns:
            The number of points stored.

        Raises:
            VectorStoreRefused: A vector does not fit the collection, or a payload cannot be stored.
        """
        distinct = list({point.id: point for point in points}.values())
        if not distinct:
            return 0
        size = dimensions or len(distinct[0].vector)
        _check_lengths(points, size)
        await self._prepare(collection, size, vector_name, distance, deadline)
        for chunk in _chunks(distinct, size):
            await self._call("upsert", collection, deadline, points=_structs(chunk, vector_name))
        return len(distinct)

    async def collections(self, *, deadline: Deadline | None = None) -> dict[str, int | None]:
        """Return the length of each collection's vectors; None for one with several lengths, or without vectors."""
        answer = await self._call("get_collections", "", deadline)
        limit = asyncio.Semaphore(_LISTED_AT_ONCE)

        async def lengths(name: str) -> set[int]:
            async with limit:
                try:
                    return set((await self._sizes(name, deadline)).values())
                except NotFound:
                    return set()

        names = [entry.name for entry in answer.collections]
        found = await asyncio.gather(*map(lengths, names))
        return {name: next(iter(sizes)) if len(sizes) == 1 else None for name, sizes in zip(names, found, strict=True)}

    async def health(self, *, deadline: Deadline | None = None) -> None:
        """Check that the store is ready; raise VectorStoreUnavailable if it is not."""
        connection = await self._open()
        await connection.ready(timeout=self._timeout(deadline))

    async def aclose(self) -> None:
        """Release connections, files and threads; a later call opens them again."""
        async with self._opening:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.aclose()

    async def _open(self) -> Connection:
        async with self._opening:
            if self._connection is None:
                self._connection = await asyncio.to_thread(_connect, self._settings)
            return self._connection

    async def _filter(self, conditions: Mapping[str, Any] | None) -> Any:
        """Read a filter. Opens first, since that imports the client in another thread than the event loop's."""
        await self._open()
        return read_filter(conditions)

    async def _call(self, method: str, collection: str, deadline: Deadline | None, **arguments: Any) -> Any:
        _check_name(collection)
        connection = await self._open()

        async def attempt() -> Any:
            with tracing.span(spans.VECTOR_STORE, f"{method} {collection}", self._about(method, collection)):
                timeout = self._timeout(deadline)
                return await connection.call(method, collection=collection, timeout=timeout, **arguments)

        return await self._server.call(attempt, deadline)

    def _about(self, method: str, collection: str) -> tracing.Attributes | None:
        if not tracing.is_on():
            return None
        address = urlsplit(self._settings.url or "")
        return {
            spans.DB_SYSTEM: "qdrant",
            spans.DB_OPERATION: method,
            spans.DB_COLLECTION: collection,
            spans.SERVER_ADDRESS: address.hostname,
            spans.SERVER_PORT: address.port,
        }

    def _timeout(self, deadline: Deadline | None) -> float:
        return self._settings.timeout if deadline is None else deadline.timeout(self._settings.timeout)

    async def _prepare(
        self, collection: str, size: int, vector_name: str | None, distance: Distance, deadline: Deadline | None
    ) -> None:
        """Create the collection, or check its vectors. If somebody else creates it meanwhile, the write checks it."""
        try:
            sizes = await self._sizes(collection, deadline)
        except NotFound:
            await self._create(collection, size, vector_name, distance, deadline)
        else:
            _check_size(collection, sizes, size, vector_name)

    async def _create(
        self, collection: str, size: int, vector_name: str | None, distance: Distance, deadline: Deadline | None
    ) -> None:
        try:
            await self._call(
                "create_collection", collection, deadline, vectors_config=_params(size, vector_name, distance)
            )
        except Conflict:
            return
        log.info("collection_created", collection=collection, dimensions=size, distance=distance)
        self.changed.set()

    async def _sizes(self, collection: str, deadline: Deadline | None) -> dict[str, int]:
        """Return the lengths of a collection's vectors by name; the unnamed one has the name ""."""
        info: CollectionInfo = await self._call("get_collection", collection, deadline)
        vectors = info.config.params.vectors
        if vectors is None:
            return {}
        named = vectors if isinstance(vectors, dict) else {"": vectors}
        return {name: params.size for name, params in named.items()}


def _check_name(collection: str) -> None:
    """Refuse names that the client takes for directories; all others are the server's to refuse."""
    if collection in {".", ".."}:
        raise VectorStoreRefused.at("collection", f"{collection!r} cannot name a collection")


def _connect(settings: QdrantSettings) -> Connection:
    """Return the connection that the settings name; takes a second if the client is not imported yet."""
    from citadel_orchestration.vectors.embedded import EmbeddedConnection
    from citadel_orchestration.vectors.server import ServerConnection

    return EmbeddedConnection(settings.path) if settings.url is None else ServerConnection(settings)


def _params(size: int, vector_name: str | None, distance: Distance) -> "VectorParams | dict[str, VectorParams]":
    from qdrant_client.models import Distance as QdrantDistance
    from qdrant_client.models import VectorParams

    params = VectorParams(size=size, distance=QdrantDistance(distance.capitalize()))
    return {vector_name: params} if vector_name else params


def _structs(points: Sequence[Point], vector_name: str | None) -> list[Any]:
    from qdrant_client.models import PointStruct

    return [
        PointStruct(
            id=point.id,
            vector={vector_name: list(point.vector)} if vector_name else list(point.vector),
            payload=dict(point.payload),
        )
        for point in points
    ]


def _chunks(points: Sequence[Point], size: int) -> Iterator[Sequence[Point]]:
    step = max(1, min(CHUNK_POINTS, CHUNK_FLOATS // size))
    return (points[start : start + step] for start in range(0, len(points), step))


def _check_lengths(points: Sequence[Point], size: int) -> None:
    for index, point in enumerate(points):
        if len(point.vector) != size:
            raise VectorStoreRefused(
                f"points[{index}]: its vector has {len(point.vector)} dimensions, where {size} are expected"
            )


def _check_size(collection: str, sizes: Mapping[str, int], size: int, vector_name: str | None) -> None:
    from citadel_orchestration.vectors.failures import wrong_dimension

    expected = sizes.get(vector_name or "")
    if expected is None:
        wanted = f"vector named {vector_name!r}" if vector_name else "unnamed vector"
        names = ", ".join(repr(name) for name in sizes if name) or "only the unnamed one"
        raise VectorStoreRefused.at("vector_name", f"{collection!r} has no {wanted}; it has {names}")
    if expected != size:
        raise wrong_dimension(collection, expected, size)


def _hit(point: "ScoredPoint") -> Hit:
    name = point.id if isinstance(point.id, int) else str(point.id)
    return Hit(id=name, score=point.score, payload=point.payload or {})
