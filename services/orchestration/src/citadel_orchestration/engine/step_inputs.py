"""Inputs of a claimed step: its definition, the scope of its expressions, its parameters."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from pydantic import ValidationError

from citadel_common.memory import take
from citadel_common.stores.postgres import Database
from citadel_common.validation import bad_fields, invalid_input
from citadel_orchestration.db import payloads
from citadel_orchestration.db.models import NO_ITEM, StepClaim, StepRef
from citadel_orchestration.definition.definition import Step
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, RunLimits
from citadel_orchestration.engine.scope import Reader, Scope, blank_scope, reads_nothing, scope_of
from citadel_orchestration.engine.submission import Definitions
from citadel_orchestration.step_types import Parameters

SHARED_BYTES = 32 * 2**20
"""Bytes of memory for scopes that are shared."""
_VALIDATED = 2
"""Bytes of memory for a byte of parameters that are checked and made into a model."""
_MUCH = 2**18
"""Bytes of parameters from which they are measured, where they are mere copies of what was read."""
_ENTRY = 1024
"""Bytes of memory of an empty entry."""
_Key = tuple[UUID, str]


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """Reads what steps need; thread-safe.

    Attributes:
        database: Where runs are read.
        definitions: Parsed definitions by run.
        limits: Limits of what is read and made.
        shared: Scopes that the items of a `for_each` share.
    """

    database: Database
    definitions: Definitions
    limits: RunLimits = DEFAULT_RUN_LIMITS
    shared: "SharedScopes" = field(default_factory=lambda: SharedScopes(SHARED_BYTES))

    def step(self, ref: StepRef) -> Step:
        """Return a step; read the run's definition only if this process does not know it."""
        known = self.definitions.known(ref.run_id)
        if known is None:
            with self.database.cursor() as cursor:
                known = self.definitions.get(ref.run_id, cursor)
        return known.steps[ref.step_id]

    def read(self, claim: StepClaim) -> tuple[Step, Scope]:
        """Return a step and the scope of its expressions.

        Raises:
            PayloadTooLarge: The scope is over its limit.
        """
        ref = claim.ref
        known = self.definitions.known(ref.run_id)
        if known is not None and reads_nothing(known.steps[ref.step_id].references, ref):
            return known.steps[ref.step_id], Scope(names=blank_scope(ref.run_id, claim.workflow_id))
        if ref.item != NO_ITEM:
            return self._read_item(claim)
        with self.database.cursor() as cursor:
            step = self.definitions.get(ref.run_id, cursor).steps[ref.step_id]
            return step, self._scope(Reader(cursor, self.limits.scope), claim, step)

    def _read_item(self, claim: StepClaim) -> tuple[Step, Scope]:
        """Read an item, and what all items of its step share only if this process has not read it."""
        ref = claim.ref
        with self.database.cursor() as cursor:
            step = self.definitions.get(ref.run_id, cursor).steps[ref.step_id]
            attempt, body = payloads.item_of(cursor, ref)
            reader = Reader(cursor, self.limits.scope)
            item = None if body is None else reader.expected(body, "the item")
        names = {"item": item, "index": ref.item}
        if reads_nothing(step.references, replace(ref, item=NO_ITEM)):
            return step, Scope(names=blank_scope(ref.run_id, claim.workflow_id) | names, size=reader.size)
        shared = self.shared.get((ref.run_id, ref.step_id), attempt, lambda: self._read_shared(claim, step))
        return step, Scope(names=shared.names | names, size=shared.size + reader.size, memory=shared.memory)

    def _read_shared(self, claim: StepClaim, step: Step) -> Scope:
        with self.database.cursor() as cursor:
            return self._scope(Reader(cursor, self.limits.scope), claim, step)

    def _scope(self, reader: Reader, claim: StepClaim, step: Step) -> Scope:
        return scope_of(reader, claim.workflow_id, step.references, claim.ref.run_id)

    def parameters(self, step: Step, scope: Scope) -> tuple[Parameters, int]:
        """Evaluate and check a step's parameters; return them and an upper bound of their bytes as JSON.

        Raises:
            InvalidInput: They do not fit the type.
            PayloadTooLarge: They are over the limit.
        """
        limit, where = self.limits.parameters, f"step {step.step_id}: parameters"
        value = step.parameters.evaluate(scope.names)
        copied = step.parameters.most_copied(scope.size)
        size = copied if copied is not None and copied <= _MUCH else limit.check(value, where)
        take(_VALIDATED * size)
        try:
            return step.type.parameters.model_validate(value), size
        except ValidationError as error:
            raise invalid_input(bad_fields(error)[:1], before=f"{where}: ") from None


@dataclass
class _Shared:
    """The scope that the items of one step share; its lock is held while it is read.

    Attributes:
        attempt: Attempt of the `for_each`.
        scope: None until it is read.
        counted: Bytes of memory that are counted for it.
    """

    attempt: int
    scope: Scope | None = None
    counted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class SharedScopes:
    """Scopes that the items of a `for_each` share, the least recently used ones dropped; thread-safe.

    Args:
        most_bytes: Bytes of memory of those that are kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[_Key, _Shared] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key, attempt: int, read: Callable[[], Scope]) -> Scope:
        """Return the scope of a step's attempt, read once however many threads want it.

        Args:
            key: Run and step.
            attempt: Attempt of the `for_each`: what it reads may change between two.
            read: Reads the scope.
        """
        entry = self._entry(key, attempt)
        with entry.lock:
            if entry.scope is None:
                entry.scope = read()
                self._count(key, entry, entry.scope)
            return entry.scope

    def _entry(self, key: _Key, attempt: int) -> _Shared:
        with self._lock:
            entry = self._kept.get(key)
            if entry is None or entry.attempt != attempt:
                self._bytes -= entry.counted if entry is not None else 0
                entry = self._kept[key] = _Shared(attempt=attempt)
            self._kept.move_to_end(key)
            return entry

    def _count(self, key: _Key, entry: _Shared, scope: Scope) -> None:
        with self._lock:
            if self._kept.get(key) is not entry:
                return
            entry.counted = _ENTRY + scope.memory
            self._bytes += entry.counted
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].counted
