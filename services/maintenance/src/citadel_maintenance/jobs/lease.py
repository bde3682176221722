"""Leases: one run of a maintenance task at a time across all workers.

The holder renews its lease while it works; the lease expires when the holder dies. When a killed worker's task is
delivered again, that delivery takes over the lease at once. If the first delivery still runs after all, its next
renewal fails and it ends.
"""

import uuid
from typing import TYPE_CHECKING, Any

from citadel_common.stores.token_lock import TokenLock

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:maintenance:lease:"
_TOKEN_LENGTH = 33
"""Characters at the end of a lease's value that identify the delivery: a space and 32 hexadecimal digits."""
# The task's id is compared without the delivery's token: that is what lets a redelivery in. The token is cut off by
# its length, because a task's id may hold spaces.
_TAKE_OVER = """
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, -ARGV[4] - 1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class Lease:
    """The lease of one delivery of a task.

    Args:
        client: Client of the result store.
        name: Name of the work that the lease covers.
        task_id: Id of the task that does the work.
        ttl: Seconds the lease lasts without renewal.
    """

    def __init__(self, client: "Redis", name: str, task_id: str, *, ttl: float) -> None:
        self.ttl = ttl
        self._task_id = task_id
        self._lock = TokenLock(client, PREFIX + name, f"{task_id} {uuid.uuid4().hex}", ttl=ttl)
        self._take_over: Any = client.register_script(_TAKE_OVER)

    def take(self) -> bool:
        """Take the lease if it is free or held by an earlier delivery of the same task; return whether it worked."""
        lock = self._lock
        arguments = [self._task_id, lock.token, lock.milliseconds, _TOKEN_LENGTH]
        return bool(self._take_over(keys=[lock.key], args=arguments))

    def renew(self) -> bool:
        """Extend the lease, or take it again if it expired and nobody else took it; return whether it is held."""
        return self._lock.take()

    def release(self) -> None:
        """Give the lease up if this delivery still holds it."""
        self._lock.release()
