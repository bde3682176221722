"""Errors of Qdrant's double, in the words of the real server."""

import re

from tests.doubles.base.refusals import Refusal

NO_KEY = Refusal(status=401, message="Must provide an API key or an Authorization bearer token")
UNAUTHORIZED = Refusal(status=401, message="Invalid API key or JWT")


def missing(collection: str) -> Refusal:
    """Return the error for a collection that does not exist."""
    return Refusal(status=404, message=f"Not found: Collection `{collection}` doesn't exist!")


def wrong_dimension(expected: int, got: int) -> Refusal:
    """Return the error for a vector of the wrong length."""
    return Refusal(status=400, message=f"Wrong input: Vector dimension error: expected dim: {expected}, got {got}")


def by_engine(error: Exception, collection: str) -> Refusal:
    """Return the server's error for an error of the client's in-memory engine."""
    words = str(error)
    if words == f"Collection {collection} not found":
        return missing(collection)
    if words.endswith("already exists"):
        return Refusal(status=409, message=f"Wrong input: Collection `{collection}` already exists!")
    if found := re.search(r"shapes \(\d+,(\d+)\) and \((\d+),\)", words):
        return wrong_dimension(int(found[1]), int(found[2]))
    if found := re.match(r"(?:Dense vector|Vector) (\S+) is not found", words):
        return Refusal(status=400, message=f"Wrong input: Not existing vector name error: {found[1]}")
    return Refusal(status=400, message=words.removesuffix(" for vector ''"))
