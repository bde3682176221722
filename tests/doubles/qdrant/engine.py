"""The REST routes of Qdrant that its Python client calls, on the client's own in-memory engine."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from qdrant_client import QdrantClient, models

from tests.doubles.base.refusals import RefusalError, refuse
from tests.doubles.qdrant.refusals import by_engine

Json = dict[str, Any]
Route = Callable[[str, Json], Any]


class QdrantEngine:
    """Answers `(method, path, body)` with the value of `result` in Qdrant's envelope."""

    def __init__(self, storage: str = "") -> None:
        self._client = QdrantClient(path=storage) if storage else QdrantClient(":memory:")
        self._routes: list[tuple[str, re.Pattern[str], Route]] = [
            (method, re.compile(path), route)
            for method, path, route in (
                ("GET", r"/collections", self._list),
                ("GET", r"/collections/([^/]+)", self._get),
                ("PUT", r"/collections/([^/]+)", self._create),
                ("DELETE", r"/collections/([^/]+)", self._drop),
                ("GET", r"/collections/([^/]+)/exists", self._exists),
                ("PUT", r"/collections/([^/]+)/points", self._upsert),
                ("POST", r"/collections/([^/]+)/points/query", self._query),
                ("POST", r"/collections/([^/]+)/points/count", self._count),
                ("POST", r"/collections/([^/]+)/points/delete", self._delete),
            )
        ]

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """Return the result; None where there is no such route."""
        for known, pattern, route in self._routes:
            if known == method and (match := pattern.fullmatch(path)):
                return self._run(route, match[1] if match.groups() else "", body)
        return None

    def _run(self, route: Route, collection: str, body: bytes) -> Any:
        try:
            return _plain(route(collection, orjson.loads(body) if body else {}))
        except (ValidationError, orjson.JSONDecodeError) as error:
            raise refuse(400, f"Format error in JSON body: {str(error).splitlines()[0]}") from error
        except ValueError as error:
            raise RefusalError(by_engine(error, collection)) from error

    def _list(self, _collection: str, _body: Json) -> Any:
        return self._client.get_collections()

    def _get(self, collection: str, _body: Json) -> Any:
        return self._client.get_collection(collection)

    def _exists(self, collection: str, _body: Json) -> Any:
        return {"exists": self._client.collection_exists(collection)}

    def _create(self, collection: str, body: Json) -> Any:
        wanted = models.CreateCollection.model_validate(body)
        return self._client.create_collection(collection, vectors_config=wanted.vectors)

    def _drop(self, collection: str, _body: Json) -> Any:
        return self._client.delete_collection(collection)

    def _upsert(self, collection: str, body: Json) -> Any:
        points = models.PointsList.model_validate(body).points
        return self._client.upsert(collection, points=points)

    def _query(self, collection: str, body: Json) -> Any:
        wanted = models.QueryRequest.model_validate(body)
        return self._client.query_points(
            collection,
            query=wanted.query,
            using=wanted.using,
            query_filter=wanted.filter,
            limit=wanted.limit if wanted.limit is not None else 10,
            score_threshold=wanted.score_threshold,
            with_payload=wanted.with_payload or False,
        )

    def _count(self, collection: str, body: Json) -> Any:
        wanted = models.CountRequest.model_validate(body)
        return self._client.count(collection, count_filter=wanted.filter)

    def _delete(self, collection: str, body: Json) -> Any:
        if "points" in body:
            return self._client.delete(collection, points_selector=models.PointIdsList.model_validate(body))
        return self._client.delete(collection, points_selector=models.FilterSelector.model_validate(body))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return dict(value) if isinstance(value, Mapping) else value
