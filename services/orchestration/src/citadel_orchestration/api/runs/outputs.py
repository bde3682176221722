"""Outputs and final contexts of any size, streamed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

from citadel_common.errors import Conflict, NotFound
from citadel_common.memory import MemoryBudget
from citadel_common.stores.postgres import Cursor, Database
from citadel_contracts.runs import FINISHED
from citadel_orchestration.api.runs import large_values
from citadel_orchestration.db import views
from citadel_orchestration.engine.scope import Reader
from citadel_orchestration.engine.submission import Definitions

T = TypeVar("T")


class StreamedJson(NamedTuple):
    """A JSON text of known size."""

    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """Reads the outputs of runs and steps piece by piece; belongs to one event loop.

    Attributes:
        database: Where runs are recorded.
        definitions: Parsed definitions of runs.
        memory: Memory for what is read.
    """

    database: Database
    definitions: Definitions
    memory: MemoryBudget

    async def output(self, run_id: UUID, step_id: str | None = None) -> StreamedJson:
        """Return the output of a run, or of one of its steps.

        Raises:
            NotFound: There is no such run, or it has no such step.
        """

        def pieces(cursor: Cursor) -> list[large_values.Piece]:
            if step_id is None:
                views.summary_of(cursor, run_id)
                return large_values.run_output(cursor, run_id)
            if step_id not in self.definitions.get(run_id, cursor).steps:
                raise NotFound(f"the run has no step {step_id!r}")
            return large_values.step_output(cursor, run_id, step_id)

        return self._streamed(run_id, await self._read(pieces))

    async def final_context(self, run_id: UUID) -> StreamedJson:
        """Return the context that a run leaves.

        Raises:
            NotFound: There is no such run.
            Conflict: It has not ended.
            PayloadTooLarge: The outputs with `data` are too large to be put together.
        """

        def pieces(cursor: Cursor) -> list[large_values.Piece]:
            summary = views.summary_of(cursor, run_id)
            if summary.status not in FINISHED:
                raise Conflict(f"the run is {summary.status}; it has a final context when it has ended")
            return large_values.final_context(Reader(cursor), run_id)

        return self._streamed(run_id, await self._read(pieces))

    def _streamed(self, run_id: UUID, pieces: list[large_values.Piece]) -> StreamedJson:
        return StreamedJson(large_values.size_of(pieces), large_values.stream(self._read, run_id, pieces))

    async def _read(self, read: Callable[[Cursor], T]) -> T:
        def call() -> T:
            with self.database.cursor() as cursor:
                return read(cursor)

        return await asyncio.to_thread(self.memory.run, call)
