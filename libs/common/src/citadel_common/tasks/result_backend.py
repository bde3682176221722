"""The result backend of workers: it stores results and waits for none.

Celery subscribes a producer to the result of each task it sends. A worker that publishes a retry or a lost task
again never reads that result, and its subscriptions would pile up.

Storing a result takes one command. Celery sends its bytes twice, to store and to publish them, and reads the stored
result before each success, so that a late failure replaces no success. The script here does the same at once.
"""

import time
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from celery import states
from celery._state import get_current_task
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.canvas import maybe_signature
from celery.exceptions import ChordError, TaskRevokedError
from kombu.utils.functional import retry_over_time
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from citadel_common.delivery.dead_letters import FailedResult
from citadel_common.errors import CitadelError, StoreUnavailable, UndecodableMessage
from citadel_common.stores.redis import ERRORS, is_full
from citadel_common.tasks.canvas import ending, part_of_end
from citadel_common.tasks.runtime import runtime_of

TRACE_ID = "citadel_trace_id"
"""Attribute of a task's request: the id of its trace, which its result carries."""
REVOKED_TTL = 3 * 3600
"""Most seconds for which the result of a revoked task is kept: then its id may be used again."""
_STORED = "citadel_result_stored"
"""Attribute of a task's request: the state whose result is stored before Celery stores it."""
CLAIM_LOOK = 0.25
"""Seconds between two looks at a chord whose body another worker is about to publish."""
CLAIM_TTL = 5
"""Seconds that the claim to publish a chord's body lasts; its holder may have died."""
CHORD_DONE_TTL = 300
"""Seconds for which a chord whose body is published counts no part that comes again."""
PATIENCE = 10.0
"""Seconds for which the publishing of errbacks is tried."""
NOT_NOW = (OutOfMemoryError, ReadOnlyError)
"""Refusals of Redis that pass: it has no memory left, or was made a replica."""
# Celery takes a result that it cannot store for a failure of the task, and stores that as soon as it can. So a task
# waits for as long as its worker lives; the message, which it holds meanwhile, is another worker's once it does not.
PATIENT = {"max_retries": None, "timeout": None, "interval_start": 0, "interval_step": 0.5, "interval_max": 3}
"""Retries of a running task's result that Redis does not take: seconds between them."""
_STORE = """
if redis.call('GETRANGE', KEYS[1], 0, 20):match('^{"status": ?"REVOKED"') then return 0 end
redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
"""
"""Stores a result, unless the task is revoked: whoever waited for it was told so."""
_REVOKE = """
local state = redis.call('GETRANGE', KEYS[1], 0, 47):match('^{"status": ?"(%u+)"')
if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then return 0 end
local waits = not state or state == 'PENDING' or state == 'RECEIVED' or state == 'RETRY' or state == 'REJECTED'
if not waits and ARGV[3] == '0' then return 0 end
redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
"""
"""Stores that a task is revoked, unless it has ended, or (ARGV[3] = 0) a worker has reported that it runs."""


class StoringBackend(RedisBackend):  # type: ignore[misc]  # celery publishes no types
    """Results in Redis."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: a worker does not wait for the results of tasks that it sends."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state == getattr(request, _STORED, None):
            return result
        if state == states.REVOKED:
            self.store_revoked([task_id], running=True, request=request)
            return result
        if state != states.SUCCESS:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        self._set_with_state(self.get_key_for_task(task_id), self.encode(meta | {"task_id": task_id}), state)
        return result

    def is_revoked(self, task_id: str) -> bool:
        """Return whether a task's stored state is REVOKED.

        Raises:
            redis.RedisError: The results store does not answer.
        """
        head: bytes = self.client.getrange(self.get_key_for_task(task_id), 0, 20)
        return head.replace(b" ", b"").startswith(b'{"status":"REVOKED"')

    def store_revoked(self, task_ids: Sequence[str], *, running: bool, request: Any = None) -> None:
        """Store that tasks are revoked; results of tasks that have ended stay as they are.

        Args:
            task_ids: The tasks.
            running: Whether that holds for tasks too of which a worker has reported that they run.
            request: The request of the one task, if it is known.

        Raises:
            redis.RedisError: The results store does not answer.
        """
        error, state = TaskRevokedError("revoked"), states.REVOKED
        meta = self._get_result_meta(self.encode_result(error, state), state, None, request)
        seconds = min(int(self.expires or REVOKED_TTL), REVOKED_TTL)
        pipe = self.client.pipeline(transaction=False)
        for task_id in task_ids:
            body = self.encode(meta | {"task_id": task_id})
            self._revoke_script(keys=[self.get_key_for_task(task_id)], args=[seconds, body, int(running)], client=pipe)
        pipe.execute()

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, *args: Any, **options: Any) -> None:
        """Store a result and count the part of a chord."""
        with ending(request):
            super().mark_as_done(task_id, result, request, *args, **options)

    def mark_as_failure(
        self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, *args: Any, **options: Any
    ) -> None:
        """Store a failure, count the part of a chord, fail the rest of the chain, publish errbacks."""
        with ending(request):
            super().mark_as_failure(task_id, exc, traceback, request, *args, **options)

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, *args: Any, **options: Any) -> None:
        """Store that a task was revoked, or was too old, and count the part of a chord."""
        with ending(request):
            super().mark_as_revoked(task_id, reason, request, *args, **options)

    def on_chord_part_return(self, request: Any, state: Any, result: Any, *_: Any, **__: Any) -> None:
        """Count the part of a chord; the last one publishes the body, or its errbacks.

        Celery's own method takes a store that fails between its commands for the chord's failure, and gives up if a
        worker has died with the claim to publish the body. This one has the same keys, and raises or waits.

        Raises:
            redis.RedisError: A store does not answer; call it again.
            StoreUnavailable: The same.
        """
        if not request.group or not request.id:
            return
        with part_of_end(request.group):
            while (claim := self._count_part(request, state, result)) == "":
                time.sleep(CLAIM_LOOK)
            if claim is not None:
                self._end_chord(request, claim)

    def _count_part(self, request: Any, state: Any, result: Any) -> str | None:
        """Return the claim to end a complete chord, "" while another worker has it, None if there is no need."""
        place = "+inf" if request.group_index is None else request.group_index
        part, claim = self.encode([1, request.id, state, self.encode_result(result, state)]), uuid.uuid4().hex
        kept = (self.chord_expires or 0, self._chord_result_expires, CLAIM_TTL, claim)
        ready, more, size, claimed = self._chord_part_return_script(
            keys=self._chord_keys(request.group, "j", "t", "s", "d", "", "c"),
            args=[request.id, part, int(self._chord_zset), place, *kept],
        )
        if size is None or ready != int(size) + int(more or 0):
            return None
        return claim if claimed else ""

    def _end_chord(self, request: Any, claim: str) -> None:
        body = maybe_signature(request.chord, app=self.app)
        try:
            results = self._results_of_chord(request.group)
            runtime_of(self.app).canvas.once("body", lambda: body.delay(results).id)
        except (ChordError, UndecodableMessage) as error:
            self.chord_error_from_stack(body, error)
            self.client.delete(*self._chord_keys(request.group, "s"))
        else:
            self._chord_cleanup_script(
                keys=self._chord_keys(request.group, "c", "j", "t", "s", "d"), args=[claim, CHORD_DONE_TTL]
            )

    def _results_of_chord(self, group_id: str) -> list[Any]:
        """Return the results of a chord's parts, in the structure of its header.

        Raises:
            ChordError: A part has failed.
        """
        [parts_key, header_key] = self._chord_keys(group_id, "j", "")
        stored: Any = self.client.zrange(parts_key, 0, -1) if self._chord_zset else self.client.lrange(parts_key, 0, -1)
        parts = [self._part(part) for part in stored]
        header = self.client.get(header_key)  # kept for a header that has groups
        if header is None:
            return [result for _, result in parts]
        _, members = self.decode(header)["result"]
        results = dict(parts)
        return [_in_structure(member, results) for member in members]

    def _part(self, stored: bytes) -> tuple[str, Any]:
        _, task_id, state, result = self.decode(stored)
        if state in states.PROPAGATE_STATES:
            raise ChordError(f"Dependency {task_id} raised {self.exception_to_python(result)!r}")
        return task_id, result

    def _chord_keys(self, group_id: str, *names: str) -> list[Any]:
        """Return the keys that Celery keeps for a chord."""
        return [self.get_key_for_group(group_id, f".{name}" if name else "") for name in names]

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """Publish errbacks; around a chord's error, Celery would take a store that fails for another error."""

        def call() -> None:
            super(StoringBackend, self)._call_task_errbacks(request, exc, traceback)

        retry_over_time(
            runtime_of(self.app).canvas.once,
            (*ERRORS, StoreUnavailable),
            args=(f"errbacks:{request.id}", call),
            timeout=PATIENCE,
            interval_start=CLAIM_LOOK,
        )

    def failed_result(self, request: Any, error: CitadelError) -> FailedResult | None:
        """Return the result of a task that fails by an error, as `_store_result` would store it; None after a success.

        It stands for the one that Celery stores at the task's end, once `has_failed` has said that it is stored.
        """
        if self._get_task_meta_for(request.id)["status"] == states.SUCCESS:
            return None
        state = states.FAILURE
        meta = self._get_result_meta(
            result=self.encode_result(error, state), state=state, traceback=None, request=request
        )
        body = self.encode(meta | {"task_id": request.id})
        return FailedResult(key=self.get_key_for_task(request.id), body=body, seconds=int(self.expires or 0))

    def has_failed(self, request: Any) -> None:
        """Record that the failed result of a task is stored, so that it is not stored again."""
        setattr(request, _STORED, states.FAILURE)

    def will_retry(self, request: Any, error: CitadelError) -> None:
        """Store that a task is to be retried, before its message is sent.

        Celery does so after it, when the next attempt may have ended already, and would replace that one's result.
        """
        self.mark_as_retry(request.id, error, request=request)
        setattr(request, _STORED, states.RETRY)

    def _get_result_meta(self, result: Any, state: str, traceback: Any, request: Any, **kwargs: Any) -> Any:
        """Return Celery's own form of a result, with the trace id beside it and in its error."""
        meta = super()._get_result_meta(result, state, traceback, request, **kwargs)
        trace_id = getattr(request, TRACE_ID, None)
        if trace_id is None:
            return meta
        if isinstance(result, dict) and state != states.SUCCESS and "error" in result:
            meta["result"] = result | {"error": result["error"] | {"trace_id": trace_id}}
        return meta | {"trace_id": trace_id}

    def prepare_exception(self, exc: Any, serializer: str | None = None) -> Any:
        """Return Celery's own form of an exception, and its data beside it, which other clients ignore."""
        stored = super().prepare_exception(exc, serializer)
        if isinstance(exc, CitadelError) and isinstance(stored, dict):
            stored["error"] = exc.data.model_dump()
        return stored

    def ensure(self, fun: Any, args: Any, **policy: Any) -> Any:
        """Store; a running task waits for Redis, everything else gives up after the time of a call."""
        patience = {} if get_current_task() is None else PATIENT
        return super().ensure(fun, args, **(patience | policy))

    def _set(self, key: str, value: str | bytes, expires: int | None = None) -> None:
        seconds = self.expires if expires is None else expires
        if not seconds:
            super()._set(key, value, expires)
            return
        try:
            self._store_script(keys=[key], args=[seconds, value])
        except ResponseError as error:
            if is_full(error):
                raise OutOfMemoryError("Redis has no memory left") from error
            raise

    @cached_property
    def _revoke_script(self) -> Any:
        return self.client.register_script(_REVOKE)

    @cached_property
    def _store_script(self) -> Any:
        return self.client.register_script(_STORE)


def _in_structure(form: Any, results: dict[str, Any]) -> Any:
    """Return the result of a task, or a list of those of a group, given Celery's stored form of its `AsyncResult`."""
    (task_id, _), members = form
    return results.get(task_id) if members is None else [_in_structure(member, results) for member in members]


class StoringSentinelBackend(StoringBackend, SentinelBackend):  # type: ignore[misc]  # celery publishes no types
    """Results in Redis behind Sentinel."""


OVERRIDES = {
    "redis": f"{__name__}:StoringBackend",
    "rediss": f"{__name__}:StoringBackend",
    "sentinel": f"{__name__}:StoringSentinelBackend",
}
"""For a Celery loader's `override_backends`."""
