"""`python -m tests.support.programs.plain_worker`: Citadel's worker, with a plain Celery task that echoes.

Nothing of the task is Citadel's, so that what is seen is the transport's.
"""

import time

from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue

TASK = "plain.echo"
QUEUE = Queue.EMBEDDINGS


def echo(text: str, seconds: float = 0.0) -> str:
    """Return the argument, after a while."""
    time.sleep(seconds)
    return text


def _start(runtime: TaskRuntime) -> None:
    runtime.app.task(name=TASK)(echo)


def _nothing() -> None:
    """Hold nothing that would have to end."""


if __name__ == "__main__":
    run_worker(QUEUE, CommonSettings(), Service(start=_start, interrupt=_nothing, close=_nothing))
