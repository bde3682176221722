"""Token ids instead of texts, as OpenAI's route takes them; the embeddings worker makes texts of them."""

from typing import Any

import orjson
from starlette.requests import Request

from citadel_common.errors import InvalidInput
from citadel_contracts.api import EmbeddingsRequest
from citadel_orchestration.api.http.bodies import decoded, read_bytes, validated

Tokens = list[list[int]]
LARGEST_ID = 2**31 - 1
MOST_IDS = 1_000_000
"""Token ids in one request."""


async def read_request(request: Request) -> tuple[EmbeddingsRequest, Tokens | None]:
    """Return the body and its token ids; the body holds an empty text for each list of ids.

    Raises:
        CitadelError: The body is not a valid request.
    """
    raw = await read_bytes(request)
    try:
        return validated(raw, EmbeddingsRequest), None
    except InvalidInput:
        content = decoded(raw)
        tokens = tokens_of(content.get("input")) if isinstance(content, dict) else None
        if tokens is None:
            raise
    texts = "" if isinstance(content["input"][0], int) else [""] * len(tokens)
    return validated(orjson.dumps(content | {"input": texts}), EmbeddingsRequest), tokens


def tokens_of(given: Any) -> Tokens | None:
    """Return the token ids of each text in an `input`; None if it holds none.

    Raises:
        InvalidInput: It holds token ids that no vocabulary has, no ids for a text, or too many.
    """
    if not isinstance(given, list) or not given:
        return None
    arrays = given if isinstance(given[0], list) else [given]
    if not all(isinstance(array, list) and all(type(id_) is int for id_ in array) for array in arrays):
        return None
    for index, array in enumerate(arrays):
        place = None if arrays[0] is given else index
        if not array:
            raise InvalidInput.at("input", "is an empty list of token ids", place)
        if not all(0 <= id_ <= LARGEST_ID for id_ in array):
            raise InvalidInput.at("input", "holds a number that is not a token id", place)
    if sum(map(len, arrays)) > MOST_IDS:
        raise InvalidInput.at("input", f"holds more than {MOST_IDS} token ids")
    return arrays
