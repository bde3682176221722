"""The REST routes of Qdrant that its Python client calls, on the client's own in-memory engine."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson
from pydantic import BaseModel, ValidationError
from qdrant_client import QdrantClient, models

from tests.doubles.base.refusals import RefusalError, refuse
from tests.doubles.qdrant import filters
from tests.doubles.qdrant.refusals import by_engine
from tests.doubles.qdrant.strict import DEFAULT_LIMIT, StrictMode

Json = dict[str, Any]
Route = Callable[[str, Json], Any]


LARGEST_BODY = 32 * 2**20


class QdrantEngine:
    """Answers `(method, path, body)` with the value of `result` in Qdrant's envelope."""

    def __init__(self, storage: str = "") -> None:
        self._client = QdrantClient(path=storage) if storage else QdrantClient(":memory:")
        self._strict: dict[str, Json] = {}
        self._limits: dict[str, StrictMode] = {}
        self._indexed: defaultdict[str, Json] = defaultdict(dict)
        self._routes: list[tuple[str, re.Pattern[str], Route]] = [
            (method, re.compile(path), route)
            for method, path, route in (
                ("GET", r"/collections", self._list),
                ("GET", r"/aliases", self._aliases),
                ("POST", r"/collections/aliases", self._change_aliases),
                ("GET", r"/collections/([^/]+)", self._get),
                ("PUT", r"/collections/([^/]+)", self._create),
                ("DELETE", r"/collections/([^/]+)", self._drop),
                ("GET", r"/collections/([^/]+)/exists", self._exists),
                ("PUT", r"/collections/([^/]+)/index", self._index),
                ("PUT", r"/collections/([^/]+)/points", self._upsert),
                ("POST", r"/collections/([^/]+)/points/query", self._query),
                ("POST", r"/collections/([^/]+)/points/count", self._count),
                ("POST", r"/collections/([^/]+)/points/delete", self._delete),
            )
        ]

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """Return the result; None where there is no such route."""
        if len(body) > LARGEST_BODY:
            sizes = f"({len(body)} bytes) is larger than allowed (limit: {LARGEST_BODY} bytes)"
            raise refuse(400, f"JSON payload {sizes}.")
        for known, pattern, route in self._routes:
            if known == method and (match := pattern.fullmatch(path)):
                return self._run(route, unquote(match[1]) if match.groups() else "", body)
        return None

    def _run(self, route: Route, collection: str, body: bytes) -> Any:
        try:
            return _plain(route(collection, orjson.loads(body) if body else {}))
        except (ValidationError, orjson.JSONDecodeError) as error:
            raise refuse(400, f"Format error in JSON body: {str(error).splitlines()[0]}") from error
        except ValueError as error:
            raise RefusalError(by_engine(error, collection)) from error

    def _real(self, name: str) -> str:
        """Return the collection that an alias names; a name that is no alias is a collection's own."""
        aliases = {each.alias_name: each.collection_name for each in self._client.get_aliases().aliases}
        return aliases.get(name, name)

    def _list(self, _collection: str, _body: Json) -> Any:
        return self._client.get_collections()

    def _aliases(self, _collection: str, _body: Json) -> Any:
        return self._client.get_aliases()

    def _change_aliases(self, _collection: str, body: Json) -> Any:
        wanted = models.ChangeAliasesOperation.model_validate(body)
        return self._client.update_collection_aliases(wanted.actions)

    def _get(self, collection: str, _body: Json) -> Any:
        info = self._client.get_collection(collection).model_dump(mode="json")
        info["config"]["strict_mode_config"] = self._strict.get(self._real(collection))
        info["payload_schema"] = self._indexed[self._real(collection)]
        return info

    def _exists(self, collection: str, _body: Json) -> Any:
        return {"exists": self._client.collection_exists(collection)}

    def _create(self, collection: str, body: Json) -> Any:
        wanted = models.CreateCollection.model_validate(body)
        created = self._client.create_collection(
            collection, vectors_config=wanted.vectors or {}, sparse_vectors_config=wanted.sparse_vectors
        )
        strict = body.get("strict_mode_config")
        if strict:
            self._strict[collection], self._limits[collection] = strict, StrictMode(strict)
        return created

    def _drop(self, collection: str, _body: Json) -> Any:
        for kept in (self._strict, self._limits, self._indexed):
            kept.pop(collection, None)
        return self._client.delete_collection(collection)

    def _index(self, collection: str, body: Json) -> Any:
        wanted = models.CreateFieldIndex.model_validate(body)
        schema = {"data_type": body.get("field_schema"), "points": 0}
        self._indexed[self._real(collection)][wanted.field_name] = schema
        return {"operation_id": 0, "status": "completed"}

    def _upsert(self, collection: str, body: Json) -> Any:
        points = models.PointsList.model_validate(body).points
        self._limits_of(collection).check_upsert(len(points))
        return self._client.upsert(collection, points=points)

    def _query(self, collection: str, body: Json) -> Any:
        wanted = models.QueryRequest.model_validate(body)
        filters.check(body.get("filter"))
        self._limits_of(collection).check_query(body, self._indexed[self._real(collection)])
        found = self._client.query_points(
            collection,
            query=wanted.query,
            using=wanted.using,
            query_filter=wanted.filter,
            limit=wanted.limit if wanted.limit is not None else DEFAULT_LIMIT,
            score_threshold=wanted.score_threshold,
            with_payload=wanted.with_payload or False,
        )
        # the server takes only what is nearer than the threshold, the client's engine what is on it as well
        return {"points": [_plain(point) for point in found.points if point.score != wanted.score_threshold]}

    def _count(self, collection: str, body: Json) -> Any:
        wanted = models.CountRequest.model_validate(body)
        return self._client.count(collection, count_filter=wanted.filter)

    def _delete(self, collection: str, body: Json) -> Any:
        if "points" in body:
            return self._client.delete(collection, points_selector=models.PointIdsList.model_validate(body))
        return self._client.delete(collection, points_selector=models.FilterSelector.model_validate(body))

    def _limits_of(self, collection: str) -> StrictMode:
        return self._limits.get(self._real(collection)) or StrictMode(None)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return dict(value) if isinstance(value, Mapping) else value
