"""The errors of the Qdrant double, in the words and the envelope of the real server."""

import re

import orjson

from tests.doubles.answers import Answer


class QdrantRefusalError(Exception):
    """The request is answered with this error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def answer(self) -> Answer:
        """Return it in Qdrant's envelope."""
        body = {"status": {"error": self.message}, "time": 0.0}
        return Answer(orjson.dumps(body), self.status, retry_after_s=1.0 if self.status == 429 else None)


def missing(collection: str) -> QdrantRefusalError:
    """Return the answer for a collection that does not exist."""
    return QdrantRefusalError(404, f"Not found: Collection `{collection}` doesn't exist!")


def exists(collection: str) -> QdrantRefusalError:
    """Return the answer for a collection that is created twice."""
    return QdrantRefusalError(409, f"Wrong input: Collection `{collection}` already exists!")


def wrong_dimension(expected: int, got: int) -> QdrantRefusalError:
    """Return the answer for a vector of the wrong length."""
    return QdrantRefusalError(400, f"Wrong input: Vector dimension error: expected dim: {expected}, got {got}")


def by_engine(error: Exception, collection: str) -> QdrantRefusalError:
    """Return what the server would say where the local engine says this."""
    words = str(error)
    if words == f"Collection {collection} not found":
        return missing(collection)
    if words.endswith("already exists"):
        return exists(collection)
    if found := re.search(r"shapes \(\d+,(\d+)\) and \((\d+),\)", words):
        return wrong_dimension(int(found[1]), int(found[2]))
    if found := re.match(r"(?:Dense vector|Vector) (\S+) is not found", words):
        return QdrantRefusalError(400, f"Wrong input: Not existing vector name error: {found[1]}")
    return QdrantRefusalError(400, words.removesuffix(" for vector ''"))


BY_MODE = {
    "error500": QdrantRefusalError(500, "Service internal error: task 42 panicked"),
    "rate429": QdrantRefusalError(429, "Rate limiting exceeded: Read rate limit exceeded, retry later"),
    "wrong_dimension": wrong_dimension(768, 384),
}
UNAUTHORIZED = Answer(b"Invalid API key or JWT", 401, b"text/plain")
PROXY_PAGE = Answer(b"<html><head><title>502 Bad Gateway</title></head><body></body></html>", 502, b"text/html")
