"""Wiring that the API and the orchestration worker share: database, step types, checks and commands of runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from citadel_common.outages import Outages
from citadel_common.stores.postgres import Database
from citadel_common.telemetry import Metrics
from citadel_orchestration.db.notifications import RunNotifications
from citadel_orchestration.engine.catalog import PublishedCatalog
from citadel_orchestration.engine.run_admission import RunAdmission
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.submission import Definitions, Submissions
from citadel_orchestration.engine.transactions import RunTransactions
from citadel_orchestration.llm.client import LlmClients
from citadel_orchestration.settings import EngineSettings
from citadel_orchestration.step_types import StepType, StepTypes
from citadel_orchestration.steps.registry import shipped_types
from citadel_orchestration.vectors.store import VectorStore

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Parts of the engine that both processes need; each connects when it is first used.

    Attributes:
        database: Pool of connections; its owner opens and closes it.
        notifications: Wake the followers of runs; its owner closes it before the database.
        llm: Clients of the LLM endpoints. The API uses them for checks of definitions only.
        vectors: Client of Qdrant. The API never calls it.
        outages: Outages of the servers that steps call.
        catalog: Models and collections; its owner starts and stops it.
        definitions: Parsed definitions of recorded runs.
        submissions: Checks definitions and makes runs of them.
        transactions: Opens transactions on runs.
        commands: Submits, cancels, pauses, resumes, signals and retries runs.
        admission: Refuses new runs while there are too many.
    """

    database: Database
    notifications: RunNotifications
    llm: LlmClients
    vectors: VectorStore
    outages: Outages
    catalog: PublishedCatalog
    definitions: Definitions
    submissions: Submissions
    transactions: RunTransactions
    commands: RunCommands
    admission: RunAdmission


def wire(
    settings: EngineSettings,
    results: "Redis",
    metrics: Metrics,
    *,
    name: str,
    owner: str | None = None,
    types: Iterable[StepType[Any]] = (),
) -> Wiring:
    """Build the shared parts.

    Args:
        settings: Settings of the process.
        results: Client of the Redis that holds the published models and collections.
        metrics: Metrics of the process.
        name: Application name shown by PostgreSQL.
        owner: Id of the worker that executes steps; None for the API, which executes none and fails fast while
            PostgreSQL is down.
        types: Step types beside those that Citadel ships.
    """
    database = Database(settings.postgres_dsn, settings.postgres, name=name, watched=owner is None, metrics=metrics)
    outages = Outages(metrics)
    llm, vectors = LlmClients(settings.llm, outages, metrics), VectorStore(settings.qdrant, outages)
    catalog = PublishedCatalog.of(
        results, problem_of_endpoint=llm.endpoint_problem, default_model=settings.default_model
    )
    known_types = StepTypes([*shipped_types(llm, vectors).values(), *types])
    definitions = Definitions(known_types)
    notifications = RunNotifications(database)
    transactions = RunTransactions(
        database=database,
        definitions=definitions,
        owner=owner,
        lease=settings.workflows.lease,
        max_events=settings.workflows.max_events,
        metrics=metrics,
        limits=settings.workflows.run_limits,
        notifications=notifications,
    )
    limits = settings.workflows.definition_limits
    return Wiring(
        database=database,
        notifications=notifications,
        llm=llm,
        vectors=vectors,
        outages=outages,
        catalog=catalog,
        definitions=definitions,
        submissions=Submissions(types=known_types.public, catalog=catalog, limits=limits),
        transactions=transactions,
        commands=RunCommands(transactions),
        admission=RunAdmission(database, settings, metrics),
    )
