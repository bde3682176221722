"""The vector store: collections of points, searched by vector."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from citadel_common.deadline import Deadline
from citadel_common.errors import Conflict, NotFound, VectorStoreRefused
from citadel_common.outages import Outages
from citadel_common.settings.qdrant import QdrantSettings
from citadel_common.telemetry import spans, tracing
from citadel_contracts.runs import Metric
from citadel_orchestration.vectors.connection import Connection
from citadel_orchestration.vectors.filters import read_filter
from citadel_orchestration.vectors.payloads import check_numbers, check_points
from citadel_orchestration.vectors.points import Hit, Point
from citadel_orchestration.vectors.spaces import Collection, VectorSpace, read_collection, space_for

if TYPE_CHECKING:
    from qdrant_client.models import ScoredPoint, VectorParams

log = structlog.get_logger(__name__)

CHUNK_POINTS = 100
CHUNK_FLOATS = 65_536
CHUNK_BYTES = 4 * 2**20
"""Limits of one write (points, numbers of their vectors, bytes of their payloads): far below a server's limit of 32 MB,
and quickly encoded."""
REMEMBERED = 10.0
"""Seconds for which searches remember what a collection holds."""
MOST_REMEMBERED = 1000

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
        self._known: dict[str, tuple[float, Collection]] = {}
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
            score_threshold: Score that every hit is nearer than: above it by cosine and dot, below it by euclid and
                manhattan.
            vector_name: Which of a point's vectors; None for the unnamed one.
            with_payload: True for hits with their payload, or the keys of it that they have.
            deadline: When the call must have ended.

        Raises:
            NotFound: There is no such collection.
            VectorStoreRefused: The filter or the vector does not fit the collection.
        """
        check_numbers(vector, "embedding")
        query_filter = await self._filter(conditions)
        space = await self._space(collection, vector_name, len(vector), deadline)
        try:
            found = await self._call(
                "query_points",
                collection,
                deadline,
                query=list(vector),
                using=vector_name,
                query_filter=query_filter,
                limit=limit,
                score_threshold=score_threshold,
                with_payload=with_payload if isinstance(with_payload, bool) else list(with_payload),
            )
        except (NotFound, VectorStoreRefused):
            self._known.pop(collection, None)
            raise
        return [_hit(point, space.metric) for point in found.points if point.score != score_threshold]

    async def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        dimensions: int | None = None,
        vector_name: str | None = None,
        distance: Metric | None = None,
        deadline: Deadline | None = None,
    ) -> int:
        """Store points, in place of those with the same ids; create a missing collection.

        Large lists are written in parts. After an error some points may be stored; repeating the call is safe. A point
        is replaced as a whole: with its payload, and with those of its vectors that have other names.

        Args:
            collection: Name of the collection.
            points: Points with vectors of the same length; of two with the same id the last one is stored.
            dimensions: Length of the vectors; None takes that of the first one.
            vector_name: Which of a point's vectors; None for the unnamed one.
            distance: Metric of a collection that is created, cosine by default; an existing one must have it.
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
        check_points(points, size)
        most = await self._prepare(collection, size, vector_name, distance, deadline)
        for chunk in _chunks(distinct, size, most or CHUNK_POINTS):
            await self._call("upsert", collection, deadline, points=_structs(chunk, vector_name))
        return len(distinct)

    async def collections(self, *, deadline: Deadline | None = None) -> dict[str, dict[str, int]]:
        """Return the lengths of each collection's vectors by name; the unnamed ones have the name ""."""
        answer = await self._call("get_collections", "", deadline)
        limit = asyncio.Semaphore(_LISTED_AT_ONCE)

        async def lengths(name: str) -> dict[str, int]:
            async with limit:
                try:
                    return (await self._read(name, deadline)).lengths
                except NotFound:
                    return {}

        names = [entry.name for entry in answer.collections]
        return dict(zip(names, await asyncio.gather(*map(lengths, names)), strict=True))

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
        self, collection: str, size: int, vector_name: str | None, distance: Metric | None, deadline: Deadline | None
    ) -> int | None:
        """Create the collection, or check its vectors; return how many points one write may have.

        If somebody else creates it meanwhile, the write checks it.
        """
        try:
            found = await self._read(collection, deadline)
        except NotFound:
            self._known.pop(collection, None)
            await self._create(collection, size, vector_name, distance or "cosine", deadline)
            return None
        space = space_for(collection, found, vector_name, size)
        if distance not in (None, space.metric):
            raise VectorStoreRefused.at("distance", f"{collection!r} has {space.metric}, not {distance}")
        return found.most_points

    async def _create(
        self, collection: str, size: int, vector_name: str | None, distance: Metric, deadline: Deadline | None
    ) -> None:
        try:
            await self._call(
                "create_collection", collection, deadline, vectors_config=_params(size, vector_name, distance)
            )
        except Conflict:
            return
        log.info("collection_created", collection=collection, dimensions=size, distance=distance)
        self.changed.set()

    async def _space(
        self, collection: str, vector_name: str | None, size: int, deadline: Deadline | None
    ) -> VectorSpace:
        """Return where a vector is searched; what is remembered of the collection never refuses it."""
        read_at, found = self._known.get(collection, (float("-inf"), None))
        if found is not None and time.monotonic() - read_at < REMEMBERED:
            with contextlib.suppress(VectorStoreRefused):
                return space_for(collection, found, vector_name, size)
        return space_for(collection, await self._read(collection, deadline), vector_name, size)

    async def _read(self, collection: str, deadline: Deadline | None) -> Collection:
        """Read what a collection holds, and remember it."""
        found = read_collection(await self._call("get_collection", collection, deadline))
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[collection] = (time.monotonic(), found)
        return found


def _check_name(collection: str) -> None:
    """Refuse names that the client takes for directories; all others are the server's to refuse."""
    if collection in {".", ".."}:
        raise VectorStoreRefused.at("collection", f"{collection!r} cannot name a collection")


def _connect(settings: QdrantSettings) -> Connection:
    """Return the connection that the settings name; takes a second if the client is not imported yet."""
    from citadel_orchestration.vectors.embedded import EmbeddedConnection
    from citadel_orchestration.vectors.server import ServerConnection

    return EmbeddedConnection(settings.path) if settings.url is None else ServerConnection(settings)


def _params(size: int, vector_name: str | None, distance: Metric) -> "VectorParams | dict[str, VectorParams]":
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


def _chunks(points: Sequence[Point], size: int, most: int) -> Iterator[Sequence[Point]]:
    """Yield the points in parts that one write can have."""
    step = max(1, min(CHUNK_POINTS, CHUNK_FLOATS // size, most))
    chunk: list[Point] = []
    room = CHUNK_BYTES
    for point in points:
        taken = len(json.dumps(point.payload))
        if chunk and (len(chunk) == step or taken > room):
            yield chunk
            chunk, room = [], CHUNK_BYTES
        chunk.append(point)
        room -= taken
    yield chunk


def _hit(point: "ScoredPoint", metric: str) -> Hit:
    name = point.id if isinstance(point.id, int) else str(point.id)
    return Hit(id=name, score=point.score, metric=metric, payload=point.payload or {})
