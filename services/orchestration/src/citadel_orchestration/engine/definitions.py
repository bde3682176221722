"""Parsed definitions of runs; they never change, so each process parses one once."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from citadel_common.backing.database import Cursor
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.loading import load
from citadel_orchestration.record import runs
from citadel_orchestration.steps.base import StepType

KEPT = 2_000
"""Definitions kept, the least used go first."""


class Definitions:
    """Definitions by run; thread-safe."""

    def __init__(self, types: Mapping[str, StepType[Any]]) -> None:
        self.types = types
        self._kept: OrderedDict[UUID, Definition] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run_id: UUID, cursor: Cursor) -> Definition:
        """The definition of a recorded run, read with `cursor` where it is not known.

        Raises:
            NotFound: There is no such run.
        """
        known = self.known(run_id)
        if known is not None:
            return known
        definition = load(orjson.loads(runs.definition_of(cursor, run_id)), self.types)
        self.keep(run_id, definition)
        return definition

    def known(self, run_id: UUID) -> Definition | None:
        """The definition, if it need not be read."""
        with self._lock:
            if run_id in self._kept:
                self._kept.move_to_end(run_id)
            return self._kept.get(run_id)

    def keep(self, run_id: UUID, definition: Definition) -> None:
        """Remembers one that is parsed already."""
        with self._lock:
            self._kept[run_id] = definition
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
