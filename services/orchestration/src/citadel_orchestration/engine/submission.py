"""Definitions: checked when they are submitted, made into runs that can be recorded, and kept parsed."""

import hashlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from citadel_common.memory import take
from citadel_common.stores.postgres import Cursor
from citadel_contracts import Lane
from citadel_orchestration.db import runs
from citadel_orchestration.db.models import NewRun, ParentStep
from citadel_orchestration.definition.definition import Definition, load
from citadel_orchestration.definition.models import DefinitionLimits
from citadel_orchestration.definition.parse import parse
from citadel_orchestration.definition.sizes import SizeLimit
from citadel_orchestration.engine import traces
from citadel_orchestration.step_types import Catalog, StepTypes

MOST_KEPT = 2_000
"""Definitions kept; the least recently used ones go first."""
MOST_BYTES = 4 * 2**20
"""Bytes of JSON of the definitions kept; a parsed one takes ten to seventy times its JSON."""

_CONTEXT = "workflows.max_context_bytes"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of a run.

    Attributes:
        kind: `workflow`, or `task` for a run whose single step is all that was asked for.
        reply_to: Id of the Celery task whose result is the run's.
        canvas: What follows that task, as JSON.
        parent: The step that waits for the run.
        depth: Number of runs that it is nested in.
        lane: Lane of its steps.
        caller: Name of the API's caller.
    """

    kind: str = "workflow"
    reply_to: str | None = None
    canvas: bytes | None = None
    parent: ParentStep | None = None
    depth: int = 0
    lane: int = Lane.STANDARD.value
    caller: str | None = None


BY_API = Origin()


@dataclass(frozen=True, kw_only=True)
class Submissions:
    """Checks definitions and makes runs of them, in the API and in the workers."""

    types: StepTypes
    catalog: Catalog
    limits: DefinitionLimits

    def check(self, raw: Any) -> Definition:
        """Check a definition and return it.

        Raises:
            InvalidDefinition: It has problems; the error lists all of them.
        """
        return parse(raw, types=self.types, catalog=self.catalog, limits=self.limits)

    def run_of(
        self,
        definition: Definition,
        *,
        run_id: UUID,
        origin: Origin = BY_API,
        workflow_id: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> NewRun:
        """Return a run of a checked definition; `context` goes over the definition's own.

        Raises:
            PayloadTooLarge: The context is over its limit.
        """
        raw = {name: value for name, value in definition.raw.items() if name != "context"}
        whole = dict(definition.context) | dict(context or {})
        if context is not None:
            take(SizeLimit(bytes=self.limits.max_context_bytes, setting=_CONTEXT).check(whole, "the context"))
        concurrency = definition.concurrency
        return NewRun(
            run_id=run_id,
            kind=origin.kind,
            workflow_id=workflow_id or definition.workflow_id or str(run_id),
            definition=orjson.dumps(raw),
            context=orjson.dumps(whole),
            steps=list(definition.steps),
            start_timeouts=[step.start_timeout for step in definition.steps.values()],
            roots=[step.step_id for step in definition.steps.values() if not step.depends_on],
            fingerprint=_fingerprint(definition.raw),
            lane=origin.lane,
            labels=dict(definition.labels),
            idempotency_key=definition.idempotency_key,
            concurrency_key=concurrency.key if concurrency else None,
            concurrency_limit=concurrency.limit if concurrency else None,
            deadline=definition.deadline,
            reply_to=origin.reply_to,
            canvas=origin.canvas,
            parent=origin.parent,
            depth=origin.depth,
            trace=traces.of_new_run(run_id),
            caller=origin.caller,
        )


def _fingerprint(raw: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(orjson.dumps(raw, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def single_step(type_: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definition of a run of one step; its parameters are data, never expressions."""
    context = {"parameters": dict(parameters)}
    expressions = {name: f"${{{{ context.parameters.{name} }}}}" for name in parameters}
    return {
        "workflow_id": type_,
        "context": context,
        "steps": [{"step_id": "step", "type": type_, "parameters": expressions}],
        "output": "${{ steps.step.output }}",
    }


def new_run_id() -> UUID:
    """Return an id that sorts by time (UUID version 7), which keeps the indexes of the database dense."""
    milliseconds = time.time_ns() // 1_000_000
    random = uuid.uuid4().int
    return UUID(int=(milliseconds << 80) | (7 << 76) | (random & ((1 << 76) - 1)) & ~(3 << 62) | (2 << 62))


class Definitions:
    """Definitions by run; thread-safe.

    Args:
        types: The step types.
        most_bytes: Bytes of JSON of the definitions kept; the one used last is kept however large it is.
        most_kept: Number of definitions kept.
    """

    def __init__(self, types: StepTypes, *, most_bytes: int = MOST_BYTES, most_kept: int = MOST_KEPT) -> None:
        self.types = types
        self._most_bytes = most_bytes
        self._most_kept = most_kept
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
            while len(self._kept) > self._most_kept or (self._bytes > self._most_bytes and len(self._kept) > 1):
                self._bytes -= self._kept.popitem(last=False)[1][1]
