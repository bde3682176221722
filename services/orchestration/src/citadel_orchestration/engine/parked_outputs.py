"""Outputs that a worker could not record before it ended, kept in Redis until any worker can.

An entry is a field of one hash: its name is the attempt, as a JSON list, its value the time of its end, by
the broker's clock, and the output.
It is removed once the transition is committed. So a worker that dies in between loses nothing, and two workers that
find the same entry record it once: the transition is fenced by the attempt.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import structlog

from citadel_common.delivery.server_clock import ServerClock
from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_orchestration.db.models import StepClaim, StepRef
from citadel_orchestration.engine.outputs import encoded_output

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
KEY = "citadel:orchestration:parked_outputs"
TTL = 7 * 86_400
"""Seconds that an output is kept."""
PAUSE_AFTER_FAILURE = 5.0
"""Seconds a Redis that failed is left alone: each call to it may take its whole timeout."""


class ParkedOutputs:
    """The outputs of a fleet; thread-safe.

    Args:
        client: Of the broker's Redis.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._clock = ServerClock(client)
        self._paused_until = 0.0

    def park(self, claim: StepClaim, output: Any) -> None:
        """Keep the output of an attempt for seven days.

        Raises:
            redis.RedisError: Redis does not take it.
            InvalidInput: It is not JSON.
        """
        ref = claim.ref
        name = orjson.dumps([str(ref.run_id), ref.step_id, ref.item, claim.attempt])
        value = b"%d\n%b" % (self._clock.now() + TTL, encoded_output(output)[1])
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(KEY, name, value)
            pipe.expire(KEY, TTL)
            pipe.execute()

    def restore(self, record: Callable[[StepRef, int, Any], None]) -> None:
        """Record the outputs that are parked; those that cannot be recorded yet stay.

        Args:
            record: Records the output of an attempt, or the error that the step fails with.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        if time.monotonic() < self._paused_until:
            return
        try:
            names: Any = self._client.hkeys(KEY)
            for name in names:
                self._restore(name, record)
        except ERRORS as error:
            self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
            log.warning("parked_outputs_not_seen", error=type(error).__name__)

    def _restore(self, name: bytes, record: Callable[[StepRef, int, Any], None]) -> None:
        run_id, step_id, item, attempt = orjson.loads(name)
        value: Any = self._client.hget(KEY, name)
        if value is None:
            return
        end, _, body = value.partition(b"\n")
        about = {"run_id": run_id, "step_id": step_id}
        if int(end) < self._clock.now():
            log.error("parked_output_expired", **about)
        else:
            try:
                record(StepRef(run_id=UUID(run_id), step_id=step_id, item=item), attempt, orjson.loads(body))
            except StoreUnavailable as error:
                if type(error) is StoreUnavailable:
                    raise
                log.warning("parked_output_waits", error=error.code, **about)
                return
            except CitadelError as error:
                log.error("parked_output_refused", error=error.code, **about)
            else:
                log.info("parked_output_recorded", **about)
        self._client.hdel(KEY, name)
