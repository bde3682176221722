"""The scope of expressions: the context, the steps that ran, the item.

Only what the expressions of a step refer to is read from the database, and only after its size was read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from citadel_common.errors import CitadelError
from citadel_common.memory import take
from citadel_common.stores.postgres import Cursor
from citadel_orchestration.db import payloads, runs
from citadel_orchestration.db.models import NO_ITEM, StepRef
from citadel_orchestration.db.transaction import RunTransaction
from citadel_orchestration.definition.definition import Definition
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, SizeLimit
from citadel_orchestration.definition.template import References
from citadel_orchestration.engine.outputs import encoded

_AT_LEAST = 4
"""Bytes of memory for a byte of JSON that is read and parsed; see `memory_of` for more."""

_NULL = b"null"
_AT_ONCE = 64 * 2**10
"""Bytes of a context, or of an output, that are read together with their number."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The scope of a step's expressions.

    Attributes:
        names: What they may name.
        size: Bytes of the JSON that was read for it.
        memory: Bytes that it takes in memory.
    """

    names: dict[str, Any]
    size: int = 0
    memory: int = 0


class Reader:
    """Reads JSON for expressions, up to a limit, and counts the memory that it takes.

    Args:
        cursor: Reads the database.
        limit: Of all that is read.
    """

    def __init__(self, cursor: Cursor, limit: SizeLimit = DEFAULT_RUN_LIMITS.scope) -> None:
        self.cursor = cursor
        self.size = 0
        self.memory = 0
        self._limit = limit

    def expect(self, size: int, what: str) -> None:
        """Count bytes that are about to be read.

        Raises:
            PayloadTooLarge: With them, more would be read than the limit.
        """
        self.size += size
        self._limit.check_bytes(self.size, what)
        self._take(_AT_LEAST * size)

    def expected(self, body: bytes, what: str) -> Any:
        """Return the value of JSON that was read without asking for its size.

        Raises:
            PayloadTooLarge: With it, more was read than the limit.
        """
        self.expect(len(body), what)
        return self.parsed(body)

    def parsed(self, body: bytes) -> Any:
        """Return the value of JSON that was expected."""
        self.count(body)
        return orjson.loads(body)

    def count(self, body: bytes) -> None:
        """Count what the value of JSON that was expected takes beyond that."""
        self._take(max(0, memory_of(body) - _AT_LEAST * len(body)))

    def submitted_context(self, run_id: UUID) -> dict[str, Any]:
        """Return a run's context as submitted."""
        size, body = payloads.context_of(self.cursor, run_id, most=_AT_ONCE)
        self.expect(size, "what is read, with the context,")
        context: dict[str, Any] = self.parsed(body or payloads.context_of(self.cursor, run_id)[1] or b"{}")
        return context

    def _take(self, size: int) -> None:
        self.memory += size
        take(size)


def memory_of(body: bytes) -> int:
    """Return the most bytes of memory that JSON takes together with its value, as CPython 3.11 to 3.14 allocates it."""
    text = len(body) * (2 if body.isascii() else 5)  # one character beyond the BMP makes a text four times as long
    parts = 240 * body.count(b"{") + 88 * body.count(b"[") + 40 * body.count(b",") + 28 * body.count(b'"')
    return text + parts


def reads_nothing(references: References, ref: StepRef) -> bool:
    """Return True if the references are evaluated without reading the database."""
    return not references.steps and not references.context and ref.item == NO_ITEM


def blank_scope(run_id: UUID, workflow_id: str) -> dict[str, Any]:
    """Return the scope of expressions for which nothing is read."""
    return {"run": {"id": str(run_id), "workflow_id": workflow_id}, "steps": {}, "context": {}}


def scope_of(reader: Reader, workflow_id: str, references: References, run_id: UUID) -> Scope:
    """Return the scope of a step's expressions, without the item of a `for_each`.

    Args:
        reader: Reads the database.
        workflow_id: Workflow id of the run.
        references: What the expressions refer to.
        run_id: The run.

    Raises:
        PayloadTooLarge: It is over the reader's limit.
    """
    names = blank_scope(run_id, workflow_id)
    names["steps"] = steps_of(reader, run_id, references.steps)
    if references.context:
        names["context"] = context_of(reader, run_id, keys=references.context_keys)
    return Scope(names=names, size=reader.size, memory=reader.memory)


def steps_of(reader: Reader, run_id: UUID, step_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return `status` and `output` of steps; the output of a `for_each` is the list of its items' outputs."""
    wanted = list(step_ids)
    if not wanted:
        return {}
    states = payloads.states_and_sizes(reader.cursor, run_id, wanted)
    for step_id, _, _, size in states:
        reader.expect(size, f"what is read, with steps.{step_id}.output,")
    outputs = payloads.outputs_of(reader.cursor, run_id, wanted)
    return {
        step_id: {"status": status, "output": _output(reader, outputs.get(step_id, {}), total)}
        for step_id, status, total, _ in states
    }


def _output(reader: Reader, bodies: dict[int, bytes], items_total: int | None) -> Any:
    if items_total is None:
        return reader.parsed(bodies[NO_ITEM]) if NO_ITEM in bodies else None
    return [reader.parsed(bodies[item]) if item in bodies else None for item in range(items_total)]


def context_of(reader: Reader, run_id: UUID, *, keys: frozenset[str] | None = None) -> dict[str, Any]:
    """Return the context as it is now: as submitted, with each output under its step's id and its keys under `data`.

    Args:
        reader: Reads the database.
        run_id: The run.
        keys: Ids of steps whose outputs are read; None for all. Outputs with `data` are always read.
    """
    ended = payloads.succeeded_steps(reader.cursor, run_id)
    done = [step_id for step_id, _, has_data in ended if keys is None or step_id in keys or has_data]
    found = steps_of(reader, run_id, done)
    return context_after(reader, run_id, {step_id: found[step_id]["output"] for step_id in done})


def context_after(reader: Reader, run_id: UUID, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context as submitted, changed by the outputs of steps in the order in which they succeeded."""
    context = reader.submitted_context(run_id)
    for step_id, output in outputs.items():
        context[step_id] = output
        context |= _data(output)
    return context


def data_of(reader: Reader, run_id: UUID, step_id: str) -> dict[str, Any]:
    """Return the keys that a step's output puts into the context."""
    return _data(steps_of(reader, run_id, [step_id])[step_id]["output"])


def _data(output: Any) -> dict[str, Any]:
    data = output.get("data") if isinstance(output, dict) else None
    return data if isinstance(data, dict) else {}


def outcome_of(reader: Reader, run_id: UUID) -> runs.RunOutcome:
    """Return the outcome of a run, whose output is counted before it is read.

    Raises:
        NotFound: The run was removed.
        PayloadTooLarge: The output is over the reader's limit.
    """
    size = payloads.run_output_size(reader.cursor, run_id) or 0
    reader.expect(size, "what is read, with the run's output,")
    outcome = runs.outcome_of(reader.cursor, run_id)
    reader.count(outcome.output or b"")
    return outcome


def output_at_end(tx: RunTransaction, definition: Definition) -> tuple[bytes | None, CitadelError | None]:
    """Return a run's output when its last step has ended, or the error that makes the run fail.

    Without an `output` in the definition it is that of the last step.
    """
    try:
        if definition.output is None:
            return _last_output(tx, definition), None
        reader = Reader(tx.cursor, tx.limits.scope)
        scope = scope_of(reader, tx.run.workflow_id, definition.output.references, tx.run.run_id)
        return encoded(definition.output.evaluate(scope.names), tx.limits.run_output, "the run's output"), None
    except CitadelError as error:
        return None, error


def _last_output(tx: RunTransaction, definition: Definition) -> bytes:
    """Return the output of the last step as it is stored; null for a batch, whose results are read one by one."""
    last = next(reversed(definition.steps.values()))
    if tx.run.kind == "batch":
        return _NULL
    reader = Reader(tx.cursor, tx.limits.run_output)
    if last.for_each is not None:
        output = steps_of(reader, tx.run.run_id, [last.step_id])[last.step_id]["output"]
        return encoded(output, tx.limits.run_output, "the run's output")
    size, body = payloads.output_of(tx.cursor, tx.run.run_id, last.step_id, most=_AT_ONCE)
    reader.expect(size, "the run's output")
    if body is None and size:
        body = payloads.output_of(tx.cursor, tx.run.run_id, last.step_id)[1]
    return body or _NULL
