"""Parsed definitions of runs; they never change, so a process parses each of them once."""

import threading
from collections import OrderedDict
from uuid import UUID

import orjson

from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db import runs
from citadel_orchestration.definition.definition import Definition, load
from citadel_orchestration.step_types import StepTypes

MOST_KEPT = 2_000
"""Definitions kept; the least recently used ones go first."""
MOST_BYTES = 4 * 2**20
"""Bytes of JSON of the definitions kept; a parsed one takes ten to seventy times its JSON."""


class Definitions:
    """Definitions by run; thread-safe.

    Args:
        types: The step types.
        most_bytes: Bytes of JSON of the definitions kept; the one used last is kept however large it is.
    """

    def __init__(self, types: StepTypes, *, most_bytes: int = MOST_BYTES) -> None:
        self.types = types
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[UUID, tuple[Definition, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run_id: UUID, cursor: Cursor) -> Definition:
        """Return the definition of a run; read it with `cursor` if this process does not know it.

        Raises:
            NotFound: There is no such run.
        """
        known = self.known(run_id)
        if known is not None:
            return known
        body = runs.definition_of(cursor, run_id)
        definition = load(orjson.loads(body), self.types)
        self._keep(run_id, definition, len(body))
        return definition

    def known(self, run_id: UUID) -> Definition | None:
        """Return the definition if this process knows it, else None."""
        with self._lock:
            if run_id not in self._kept:
                return None
            self._kept.move_to_end(run_id)
            return self._kept[run_id][0]

    def _keep(self, run_id: UUID, definition: Definition, size: int) -> None:
        with self._lock:
            if run_id in self._kept:  # another thread was faster
                return
            self._kept[run_id] = definition, size
            self._bytes += size
            while len(self._kept) > MOST_KEPT or (self._bytes > self._most_bytes and len(self._kept) > 1):
                self._bytes -= self._kept.popitem(last=False)[1][1]
