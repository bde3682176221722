"""`python -m tests.support.programs.plain_worker`: Citadel's worker, with plain Celery tasks that echo and that count.

Nothing of the tasks is Citadel's, so that what is seen is the transport's.
"""

import time

from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue

TASK = "plain.echo"
COUNTED = "plain.count"
STARTS = "plain:starts"
"""Hash of the server's times, in seconds, at which `plain.count` has started, each followed by a blank; by argument."""
_NOTE_START = """
local time = redis.call('TIME')
local at = string.format('%d.%06d', time[1], time[2])
redis.call('HSET', KEYS[1], ARGV[1], (redis.call('HGET', KEYS[1], ARGV[1]) or '') .. at .. ' ')
"""
QUEUE = Queue.EMBEDDINGS


def echo(text: str, seconds: float = 0.0) -> str:
    """Return the argument, after a while."""
    time.sleep(seconds)
    return text


def _start(runtime: TaskRuntime) -> None:
    runtime.app.task(name=TASK)(echo)
    note_start = runtime.results.register_script(_NOTE_START)

    def count(text: str) -> None:
        note_start(keys=[STARTS], args=[text])

    runtime.app.task(name=COUNTED, ignore_result=True)(count)


def _nothing() -> None:
    """Hold nothing that would have to end."""


if __name__ == "__main__":
    run_worker(QUEUE, CommonSettings(), Service(start=_start, interrupt=_nothing, close=_nothing))
