"""JSON for task messages and results, by orjson: vectors in results would make the standard library the bottleneck.

The wire form stays plain JSON, so that any Celery client reads it.
"""

from typing import Any

import orjson
from kombu.serialization import register
from kombu.utils import json as kombu_json


def dumps(value: Any) -> str:
    """JSON text; numpy arrays and orjson fragments are allowed, other types go kombu's way."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        text: str = kombu_json.dumps(value)
        return text


def loads(text: str | bytes) -> Any:
    """The value; what strict JSON refuses (lone surrogates, NaN) is left to kombu's reader, then to validation."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return kombu_json.loads(text)


def install() -> None:
    """Makes this the process's `json` serializer."""
    register("json", dumps, loads, content_type="application/json", content_encoding="utf-8")
