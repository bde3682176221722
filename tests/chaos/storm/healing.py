"""How long it takes after a fault until everything works again."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.storm.definitions import retrieval
from tests.chaos.storm.ledger import Entry, Fate
from tests.chaos.storm.load import Load

PAUSE_S = 0.1


class Healing:
    """Sends new work of three kinds until each has been finished once: all parts of Citadel are in one of them.

    Args:
        load: Sends it.
        limit: Seconds after which it is given up.
    """

    def __init__(self, load: Load, limit: float) -> None:
        self._probes: list[Callable[[], Entry]] = [load.embedding, load.plain, lambda: load.workflow(retrieval)]
        self._limit = limit

    def seconds(self) -> float:
        """Return the seconds until new work of all kinds has been finished; infinite if that is not in time."""
        begin = time.monotonic()
        with ThreadPoolExecutor(len(self._probes)) as pool:
            return max(pool.map(lambda probe: self._of(probe, begin), self._probes))

    def _of(self, probe: Callable[[], Entry], begin: float) -> float:
        end = begin + self._limit
        while time.monotonic() < end:
            entry = probe()
            while entry.fate is Fate.OPEN and time.monotonic() < end:
                time.sleep(PAUSE_S)
            if entry.fate is Fate.FINISHED:
                return time.monotonic() - begin
            time.sleep(PAUSE_S)
        return float("inf")
