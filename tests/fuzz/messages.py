"""Messages of every task with random faults, as entries of the queues' lists; one seed makes the same messages."""

import base64
import bz2
import copy
import functools
import json
import lzma
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

TEXT = "some text"
MODEL = "nomic-embed-text"
_RUN = "0193b3c8-8f2e-7c41-9a57-f1a3b2c4d5e6"
_STEP = {"step_id": "a", "type": "embedding", "parameters": {"text": "${{ context.q }}", "model": MODEL}}
_WAIT = {"step_id": "w", "type": "wait", "parameters": {"duration": "10ms"}}
TASKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "generate_embedding": (
        "embeddings",
        [{"text": TEXT, "model": MODEL}, {"text": [TEXT, "b"], "options": {"seed": 1}}],
    ),
    "batch_generate_embeddings": ("embeddings", [{"batch_data": [{"text": TEXT, "model": MODEL}], "batch_size": 2}]),
    "warm_embedding_cache": ("embeddings", [{"texts": [TEXT], "models": [MODEL]}]),
    "citadel.embed_steps": (
        "embeddings",
        [{"steps": [{"run_id": _RUN, "step_id": "a", "item": -1, "attempt": 1, "parts": [{"texts": [TEXT]}]}]}],
    ),
    "execute_workflow": (
        "orchestration",
        [{"workflow_definition": {"context": {"q": TEXT}, "steps": [_STEP, _WAIT], "deadline": "20s"}}],
    ),
    "query_llm_service": ("orchestration", [{"query": TEXT, "context": {"a": 1}}]),
    "vector_similarity_search": ("orchestration", [{"collection": "docs", "text": TEXT, "model": MODEL}]),
    "upsert_vectors": ("orchestration", [{"collection": "docs", "points": [{"text": TEXT}], "model": MODEL}]),
    "citadel.run_step": ("orchestration", [{"run_id": _RUN, "step_id": "a"}]),
    "system_health_check": ("monitoring", [{}]),
    "collect_system_metrics": ("monitoring", [{}]),
    "cleanup_expired_cache": ("maintenance", [{"time_limit": 1.0, "dry_run": True}]),
    "citadel.purge_runs": ("maintenance", [{"time_limit": 1.0, "dry_run": True}]),
    "citadel.purge_results": ("maintenance", [{"dry_run": True}]),
    "citadel.purge_dead_letters": ("maintenance", [{"dry_run": True}]),
    "citadel.purge_orphans": ("maintenance", [{"dry_run": True}]),
    "citadel.reroute_messages": ("maintenance", [{"dry_run": True}]),
    "citadel.advise_vacuum": ("maintenance", [{}]),
}
"""Queue and arguments of each task."""
INTERNAL = ("citadel.embed_steps", "citadel.run_step")
"""Tasks of the engine itself, whose success leaves no result."""
_SLOW = ("monitoring", "maintenance")
_FOREIGN = (
    "no.such.task", "", "celery.map", "celery.starmap", "celery.chunks", "celery.group", "celery.chord", "celery.chain",
    "celery.chord_unlock", "celery.accumulate", "celery.backend_cleanup", "os.system", "generate_embedding\n", "\ud800",
)  # fmt: skip
_DEEP: Any = []
for _ in range(300):
    _DEEP = [_DEEP]
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 2**31, 2**63, 2**64, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "",
    "x", "\x00", "\ud800", "\udfff\ud800", "x" * 5000, "1", "true", "null", "${{ 1 }}", "../../etc/passwd", "%s%n",
    [], [[]], {},
    {"": None}, {"__class__": "x"}, {"text": {"text": []}}, [None] * 300, _DEEP, [1, "a", None], {"a": _DEEP},
)  # fmt: skip
_TYPES = (
    "application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "text/plain", "application/data",
    "application/json; charset=latin-1", "json", "", None, 5, "\ud800", ["application/json"], {},
)  # fmt: skip
_ENCODINGS = ("binary", "latin-1", "utf-16", "utf-7", "idna", "base64", "rot13", "no-such", "", None, 7, "\x00", [], {})
_HEADERS = (
    "lang", "task", "id", "root_id", "parent_id", "group", "group_index", "retries", "timelimit", "eta", "expires",
    "argsrepr", "kwargsrepr", "origin", "shadow", "meth", "stamps", "stamped_headers", "replaced_task_nesting",
    "compression", "traceparent", "tracestate", "baggage", "citadel_accepted", "citadel_deadline", "citadel_history",
    "citadel_sent_at", "citadel_attempt", "redelivered", "ignore_result", "__proto__",
)  # fmt: skip
_PROPERTIES = (
    "correlation_id", "reply_to", "delivery_mode", "delivery_info", "priority", "body_encoding", "delivery_tag",
    "expiration", "message_id", "headers",
)  # fmt: skip
_FOREIGN_STEPS = (":3", ":6", "##9", "\x06\x161", "\x06\x165", "\x06\x168")
"""What follows a queue's name in the lists of clients with another separator or other priority steps."""
_EXCHANGES = ("celery", "their-topic", "embeddings", "no-such-exchange", "")
_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress, "gzip": zlib.compress, "application/x-bz2": bz2.compress,
    "lzma": lzma.compress,
}  # fmt: skip


_HARMLESS = ("argument", "inner_argument", "times", "canvas", "compressed")
"""Faults after which a message still names its task and its queue."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A list entry.

    Attributes:
        list_key: The list.
        entry: Its bytes.
        task_id: The id under which a result or a dead letter is expected; None if the entry has none that is usable.
        task: The name in its headers, if that is a name.
        wants_no_result: Whether its sender asks for no result.
        faults: The task, and the names of its faults.
    """

    list_key: str
    entry: bytes
    task_id: str | None
    task: str | None
    wants_no_result: bool
    faults: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Return all that tells one failed message from another."""
        return f"{self.faults} {self.entry[:3000].decode(errors='backslashreplace')}"


class Messages:
    """Makes messages.

    Args:
        seed: Seed of all.
        separator: Stands between a queue's name and its priority in the names of lists.
    """

    def __init__(self, seed: int, separator: str = "\x06\x16") -> None:
        self._random = random.Random(seed)
        self._separator = separator
        self._last_id = ""
        self._faults: dict[str, Callable[[dict[str, Any]], None]] = {
            name.removeprefix("_fault_"): getattr(self, name) for name in dir(self) if name.startswith("_fault_")
        }

    def some(self, count: int, names: tuple[str, ...]) -> Iterator[Sent]:
        """Yield that many messages of these tasks."""
        for _ in range(count):
            yield self._one(self._pick(names))

    def _pick(self, values: Any) -> Any:
        return self._random.choice(list(values))

    def _value(self) -> Any:
        """Return a value that later faults may change."""
        return copy.deepcopy(self._pick(_VALUES))

    def _one(self, name: str) -> Sent:
        queue, arguments = TASKS[name]
        message = self._message(name, queue, json.loads(json.dumps(self._pick(arguments))))
        faults = []
        if self._random.random() < 0.08:
            faults.append("first protocol")
            if self._random.random() < 0.5:
                self._faults[fault := self._pick(("times", "canvas", "exchange", "inner_argument"))](message)
                faults.append(fault)
            self._move_to_first_protocol(message)
        else:
            for _ in range(self._pick((0, 1, 1, 1, 2, 3))):
                fault = self._pick(self._faults)
                faults.append(fault)
                self._faults[fault](message)
        entry = _encoded(message)
        is_whole = {"first protocol", *_HARMLESS}.issuperset(faults)
        if is_whole and self._random.random() < 0.1:
            return self._sent(queue + self._pick(_FOREIGN_STEPS), entry, (name, "another client's list", *faults))
        if self._random.random() < 0.08:
            faults.append("bytes")
            entry = self._broken(entry)
        priority = self._pick(("", "", "3", "6"))
        key = f"{queue}{self._separator}{priority}" if priority else queue
        return self._sent(key, entry, (name, *faults))

    def _sent(self, key: str, entry: bytes, faults: tuple[str, ...]) -> Sent:
        headers = _headers_in(entry)
        task = headers.get("task")
        return Sent(
            list_key=key,
            entry=entry,
            task_id=_id_in(headers),
            task=task if isinstance(task, str) else None,
            wants_no_result=bool(headers.get("ignore_result")),
            faults=faults,
        )

    def _message(self, name: str, queue: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        task_id, tag = (f"{self._random.getrandbits(128):032x}" for _ in range(2))
        headers = {
            "lang": "py", "task": name, "id": task_id, "root_id": task_id, "parent_id": None, "group": None,
            "retries": 0, "timelimit": [None, None], "eta": None, "expires": None, "argsrepr": "", "kwargsrepr": "",
            "origin": "fuzz",
        }  # fmt: skip
        properties = {
            "correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 3, "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue}, "delivery_tag": tag,
        }  # fmt: skip
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        return {
            "payload": [[], kwargs, embed],
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
        }

    def _move_to_first_protocol(self, message: dict[str, Any]) -> None:
        """Move name and id into the body, as Celery's first protocol has them."""
        headers, (args, kwargs, _) = message["headers"], message["payload"]
        task_id = self._pick((headers["id"], headers["id"], *_VALUES))
        times = {name: headers[name] for name in ("eta", "expires", "retries", "timelimit")}
        canvas = message["payload"][2]
        message["payload"] = {
            "task": headers["task"], "id": task_id, "args": args, "kwargs": kwargs, "taskset": None, "utc": True,
        } | times | (canvas if isinstance(canvas, dict) else {})  # fmt: skip
        message["headers"] = {}

    def _fault_header(self, message: dict[str, Any]) -> None:
        self._spoil(message, "headers", _HEADERS)

    def _fault_property(self, message: dict[str, Any]) -> None:
        self._spoil(message, "properties", _PROPERTIES)

    def _spoil(self, message: dict[str, Any], part: str, names: tuple[str, ...]) -> None:
        if not isinstance(message.get(part), dict):
            return
        name = self._pick(names)
        if self._random.random() < 0.3:
            message[part].pop(name, None)
        else:
            message[part][name] = self._value()

    def _fault_part(self, message: dict[str, Any]) -> None:
        name = self._pick(("headers", "properties", "content-type", "content-encoding", "payload"))
        message[name] = self._value()

    def _fault_missing_part(self, message: dict[str, Any]) -> None:
        message.pop(self._pick(("headers", "properties", "content-type", "content-encoding")), None)

    def _fault_exchange(self, message: dict[str, Any]) -> None:
        delivery = {"exchange": self._pick(_EXCHANGES), "routing_key": self._pick(("celery", "emb.x", "embeddings"))}
        self._set(message, "properties", "delivery_info", delivery)

    def _fault_content_type(self, message: dict[str, Any]) -> None:
        message["content-type"] = self._pick(_TYPES)

    def _fault_content_encoding(self, message: dict[str, Any]) -> None:
        message["content-encoding"] = self._pick(_ENCODINGS)

    def _fault_task_name(self, message: dict[str, Any]) -> None:
        self._set(message, "headers", "task", self._pick((*_FOREIGN, *TASKS)))

    def _fault_duplicate_id(self, message: dict[str, Any]) -> None:
        if self._last_id:
            self._set(message, "headers", "id", self._last_id)
        if isinstance(message.get("headers"), dict) and isinstance(message["headers"].get("id"), str):
            self._last_id = message["headers"]["id"]

    def _fault_times(self, message: dict[str, Any]) -> None:
        at = datetime.now(UTC) + timedelta(seconds=self._pick((-1e8, -60, 0.2, 1)))
        self._set(
            message, "headers", self._pick(("eta", "expires")), self._pick((at.isoformat(), str(at), "9999-99-99", "x"))
        )

    def _fault_compressed(self, message: dict[str, Any]) -> None:
        name = self._pick(_COMPRESSIONS)
        self._set(message, "headers", "compression", name)
        if self._random.random() < 0.8:
            message["compress"] = name

    def _fault_bomb(self, message: dict[str, Any]) -> None:
        name = self._pick(_COMPRESSIONS)
        self._set(message, "headers", "compression", name)
        message["raw"] = _bomb(name)

    def _fault_argument(self, message: dict[str, Any]) -> None:
        kwargs = self._kwargs_of(message)
        if kwargs and isinstance(kwargs, dict):
            kwargs[self._pick(kwargs)] = self._value()

    def _fault_inner_argument(self, message: dict[str, Any]) -> None:
        place: Any = self._kwargs_of(message)
        for _ in range(self._pick((1, 2, 3, 4))):
            if isinstance(place, dict) and place:
                name: Any = self._pick(place)
            elif isinstance(place, list) and place:
                name = self._random.randrange(len(place))
            else:
                return
            if not isinstance(place[name], dict | list) or self._random.random() < 0.3:
                place[name] = self._value()
                return
            place = place[name]

    def _fault_more_arguments(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if isinstance(payload, list) and len(payload) == 3 and isinstance(payload[1], dict):
            payload[1][self._pick(("model", "x", "", "\x00", "self", "task_id", "time_limit"))] = self._value()
            payload[0] = self._pick(([], [1], [[TEXT]], ["a"] * 50, payload[0]))

    def _fault_shape(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if isinstance(payload, list) and payload:
            payload[self._random.randrange(len(payload))] = self._value()
        if isinstance(payload, list) and self._random.random() < 0.3:
            payload.append(self._value())

    def _fault_canvas(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if isinstance(payload, list) and len(payload) == 3 and isinstance(payload[2], dict):
            signature = {"task": "generate_embedding", "args": [TEXT], "kwargs": {}, "options": {"queue": "embeddings"}}
            broken = {"task": self._value(), "options": self._value()}
            value = self._pick(([signature], [broken], broken, [None], *_VALUES[:20]))
            payload[2][self._pick(("callbacks", "errbacks", "chain", "chord"))] = value

    def _fault_base64(self, message: dict[str, Any]) -> None:
        message["encoded"] = self._pick(("!!!", "A", "====", "\u00e4\u00f6", "AAAA" * 10, ""))

    def _fault_body_bytes(self, message: dict[str, Any]) -> None:
        message["raw"] = self._pick(
            (
                b"",
                b"\x00",
                b"\xff\xfe",
                b"{",
                b"[[[",
                b"null",
                b"[" * 50_000,
                b"[[1e999], {}, {}]",
                b"\x80\x04N.",
                b'"a"',
            )
        )

    def _set(self, message: dict[str, Any], part: str, name: str, value: Any) -> None:
        if isinstance(message.get(part), dict):
            message[part][name] = value

    def _kwargs_of(self, message: dict[str, Any]) -> Any:
        payload = message.get("payload")
        return payload[1] if isinstance(payload, list) and len(payload) > 1 else None

    def _broken(self, entry: bytes) -> bytes:
        cut = self._random.randrange(len(entry))
        noise = self._random.randbytes(self._pick((1, 4, 40)))
        return self._pick(
            (entry[:cut], entry[:cut] + noise + entry[cut + len(noise) :], entry + noise, noise, b"", entry * 2)
        )


@functools.cache
def _bomb(compression: str) -> bytes:
    return _COMPRESSIONS[compression](b'[["' + b" " * 60_000_000 + b'"], {}, {}]')


def _encoded(message: dict[str, Any]) -> bytes:
    """Return the entry of a message, whose body is made from the notes that its faults left."""
    payload, raw = message.pop("payload", None), message.pop("raw", None)
    encoded, compress = message.pop("encoded", None), message.pop("compress", None)
    body = raw if raw is not None else json.dumps(payload).encode()
    if compress:
        body = _COMPRESSIONS[compress](body)
    message["body"] = base64.b64encode(body).decode() if encoded is None else encoded
    return json.dumps(message).encode()


def _headers_in(entry: bytes) -> dict[str, Any]:
    """Return the headers of an entry, or what stands for them in the body of Celery's first protocol."""
    try:
        message = json.loads(entry)
        headers = message["headers"]
        body = json.loads(base64.b64decode(message["body"])) if not headers else None
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    found = body if isinstance(body, dict) else headers
    return found if isinstance(found, dict) else {}


def _id_in(headers: dict[str, Any]) -> str | None:
    task_id = headers.get("id")
    return task_id if isinstance(task_id, str) and 0 < len(task_id) <= 255 and task_id.isprintable() else None
