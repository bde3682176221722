"""The record of runs, as a test sees and fills it: by the product's own transitions, and by SQL."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from uuid import UUID

from pydantic import SecretStr

from citadel_common.settings.postgres import PostgresSettings
from citadel_common.stores.postgres import Cursor, Database
from citadel_contracts.runs import FINISHED
from citadel_orchestration.db.notifications import RunNotifications
from citadel_orchestration.definition.models import DefinitionLimits
from citadel_orchestration.engine.recovery import StepRecovery
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.submission import Definitions, Submissions, new_run_id
from citadel_orchestration.engine.transactions import RunTransactions
from citadel_orchestration.step_types import StepType, StepTypes
from citadel_orchestration.steps.llm_query import LlmClient
from citadel_orchestration.steps.registry import shipped_types
from citadel_orchestration.vectors.store import VectorStore
from tests.support.polling import eventually

T = TypeVar("T")
LEASE = 3600.0


class NothingKnown:
    """Knows no model, no collection and no endpoint, so that no definition is refused for one."""

    def endpoint_problem(self, name: str) -> str | None:
        """Return None: any endpoint may be named."""
        del name

    def model_dimensions(self, model: str | None) -> int | None:
        """Return None: it is not known."""
        del model

    def collection_vectors(self, collection: str) -> dict[str, int] | None:
        """Return None: it is not known."""
        del collection


class EngineDatabase:
    """A database of runs. Steps that its transitions claim are leased by `owner`, for `lease` seconds.

    With no owner nothing is claimed: steps are left ready, and workers look for them within a third of the lease.
    Definitions may use step types of the test's own beside the shipped ones.
    """

    def __init__(
        self,
        dsn: str,
        *,
        owner: str | None = "the test",
        lease: float = LEASE,
        max_output_bytes: int = 2**20,
        types: Iterable[StepType[Any]] = (),
    ) -> None:
        self.database = Database(SecretStr(dsn), PostgresSettings(pool_size=4), name="tests")
        self.database.open()
        shipped = shipped_types(cast("LlmClient", None), cast("VectorStore", None))  # nothing is executed here
        known = StepTypes([*shipped.values(), *types])
        self.definitions = Definitions(known)
        self.submissions = Submissions(types=known, catalog=NothingKnown(), limits=DefinitionLimits())
        self._notifications = RunNotifications(self.database)
        transactions = RunTransactions(
            database=self.database,
            definitions=self.definitions,
            owner=owner,
            lease=lease,
            notifications=self._notifications,
        )
        self.transitions = StepTransitions(transactions, max_output_bytes=max_output_bytes)
        self.commands = RunCommands(transactions)
        self.recovery = StepRecovery(transactions)

    def submit(self, definition: dict[str, Any]) -> UUID:
        """Check and record a run, which any worker may then begin."""
        run = self.submissions.run_of(self.submissions.check(definition), run_id=new_run_id())
        return self.commands.submit(run).run_id

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        with self.database.cursor() as cursor:
            cursor.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def find(self, read: Callable[[Cursor], list[T]]) -> list[T]:
        """Return what a read of the sweeper finds."""
        with self.database.cursor() as cursor:
            return read(cursor)

    def status(self, run_id: UUID) -> str:
        """Return a run's state."""
        return str(self.rows("SELECT status FROM runs WHERE run_id = %s", run_id)[0][0])

    def statuses(self) -> dict[UUID, str]:
        """Return the states of all runs."""
        return dict(self.rows("SELECT run_id, status FROM runs"))

    def steps(self, run_id: UUID) -> dict[str, str]:
        """Return the states of a run's steps."""
        return dict(self.rows("SELECT step_id, status FROM steps WHERE run_id = %s AND item = -1", run_id))

    def items(self, run_id: UUID, step_id: str) -> list[str]:
        """Return the states of a step's items, in order."""
        query = "SELECT status FROM steps WHERE run_id = %s AND step_id = %s AND item >= 0 ORDER BY item"
        return [status for (status,) in self.rows(query, run_id, step_id)]

    def events(self, run_id: UUID) -> list[tuple[str, str | None, int | None]]:
        """Return type, step and item of a run's events, whose numbers must have no gap."""
        found = self.rows("SELECT seq, type, step_id, item FROM events WHERE run_id = %s ORDER BY seq", run_id)
        assert [event[0] for event in found] == list(range(1, len(found) + 1))
        return [(type_, step_id, item) for _, type_, step_id, item in found]

    def error(self, run_id: UUID) -> dict[str, Any]:
        """Return why a run did not succeed."""
        found: dict[str, Any] = self.rows("SELECT error FROM runs WHERE run_id = %s", run_id)[0][0]
        return found

    def ended(self, run_id: UUID) -> str:
        """Wait until a run has ended; return its state."""
        eventually(lambda: self.status(run_id) in FINISHED)
        return self.status(run_id)

    def all_ended(self) -> set[str]:
        """Wait until every run has ended; return their states."""
        eventually(lambda: set(self.statuses().values()) <= FINISHED)
        return set(self.statuses().values())

    def assert_recorded_once(self, run_id: UUID) -> None:
        """Each step and item has begun and has succeeded once at most, and none is left open."""
        ends = [event[1:] for event in self.events(run_id) if event[0] == "step_succeeded"]
        assert len(ends) == len(set(ends))
        open_ones = "SELECT count(*) FROM steps WHERE run_id = %s AND finished_at IS NULL"
        assert self.rows(open_ones, run_id) == [(0,)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._notifications.close()
        self.database.close()
