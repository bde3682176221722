"""The thread in which a worker releases the messages of its queue whose time has come.

It sleeps until the next of them is due, as the broker tells it, and at most `LONGEST`, because a peer may have added an
earlier one. So a message is at most that much late, whichever workers die. The thread has a connection of its own: a
consumer that reconnects, or has all hands full, does not delay it.
"""

import threading
from typing import TYPE_CHECKING

import structlog

from citadel_common.delivery.timers import NOT_YET
from citadel_common.stores.redis import ERRORS

if TYPE_CHECKING:
    from citadel_common.tasks.runtime import TaskRuntime

log = structlog.get_logger(__name__)
LONGEST = 0.5
"""Most seconds between two looks at the timers."""


class TimerRelease:
    """Releases what is due, from `start` to `stop`."""

    def __init__(self, runtime: "TaskRuntime") -> None:
        self._timers = runtime.timers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; peers go on."""
        self._stop.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = self._release()

    def _release(self) -> float:
        """Release what is due; return the seconds until the next look."""
        try:
            pause = self._timers.release().pause
        except ERRORS as error:
            if not self._failing:
                log.warning("timers_unavailable", error=type(error).__name__)
            self._failing = True
            return LONGEST
        except Exception:
            log.exception("timers_crashed")
            return LONGEST
        self._failing = False
        return LONGEST if pause is None else min(max(pause, NOT_YET), LONGEST)
