"""JSON of task messages and results, by orjson.

The standard library would be the bottleneck for results with vectors. The wire form stays plain JSON, which any Celery
client reads.
"""

from typing import Any

import orjson
from kombu.serialization import register
from kombu.utils import json as kombu_json

from citadel_common.delivery import compression
from citadel_contracts import json_text


def dumps(value: Any) -> str:
    """Return JSON text; NumPy arrays and orjson fragments are allowed, kombu encodes other types."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        text: str = kombu_json.dumps(value)
        return text


def loads(text: str | bytes) -> Any:
    """Return the value; kombu reads what strict JSON refuses (lone surrogates, NaN), and validation judges it.

    It also reads integers beyond 64 bits, which orjson would round without a word.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return kombu_json.loads(text)
    written = text if isinstance(text, bytes) else text.encode()
    return kombu_json.loads(text) if json_text.may_hold_extremes(written) else value


def install() -> None:
    """Register this as the process's `json` serializer, and the decoders of compressed messages."""
    register("json", dumps, loads, content_type="application/json", content_encoding="utf-8")
    compression.install()
