"""Transitions of many clients at once, beside plain commits: nothing but the disk should make one wait for another."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from pydantic import SecretStr

from citadel_common.settings.postgres import PostgresSettings
from citadel_common.stores.postgres import Database
from citadel_orchestration.db.migrate import migrate
from citadel_orchestration.db.models import NewRun, StepClaim, StepRef
from citadel_orchestration.db.notifications import RunNotifications
from citadel_orchestration.definition.models import DefinitionLimits
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.submission import Definitions, Submissions, new_run_id
from citadel_orchestration.engine.transactions import RunTransactions
from citadel_orchestration.step_types import StepTypes
from citadel_orchestration.steps.registry import shipped_types
from tests.bench.figure import Benchmark, Figure
from tests.bench.postgres import postgres_process
from tests.bench.stack import Stack
from tests.bench.workflows import commit_rate
from tests.support.engine_db import NothingKnown

if TYPE_CHECKING:
    from citadel_orchestration.llm.client import LlmClients
    from citadel_orchestration.vectors.store import VectorStore

CLIENTS = 16
STEPS = 300
"""Steps of each client's run; each success is one transition, which claims the next step."""


class Transitions:
    """Runs of chained steps, whose successes are recorded by threads."""

    def __init__(self, dsn: str) -> None:
        migrate(dsn)
        self._database = Database(SecretStr(dsn), PostgresSettings(pool_size=CLIENTS + 1), name="bench")
        self._database.open()
        types = StepTypes(shipped_types(cast("LlmClients", None), cast("VectorStore", None)).values())
        self._submissions = Submissions(types=types, catalog=NothingKnown(), limits=DefinitionLimits())
        self._notifications = RunNotifications(self._database)
        self._definitions = Definitions(types, most_bytes=2**26)
        transactions = RunTransactions(
            database=self._database,
            definitions=self._definitions,
            owner="bench",
            lease=600.0,
            notifications=self._notifications,
        )
        self._transitions = StepTransitions(transactions, max_output_bytes=2**20)
        self._commands = RunCommands(transactions)

    def rate(self) -> float:
        """Return the transitions per second of all clients together."""
        steps = [{"step_id": f"s{n}", "type": "wait", "parameters": {"duration": 1}} for n in range(STEPS)]
        definition = self._submissions.check({"steps": steps})
        claims = [self._begun(self._submissions.run_of(definition, run_id=new_run_id())) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            started = time.perf_counter()
            list(pool.map(self._succeed, claims))
            return CLIENTS * (STEPS - 1) / (time.perf_counter() - started)

    def _begun(self, run: NewRun) -> StepClaim:
        self._commands.submit(run)
        with self._database.cursor() as cursor:
            self._definitions.get(run.run_id, cursor)
        [claim] = self._transitions.start(StepRef(run_id=run.run_id, step_id="s0")).claims
        return claim

    def _succeed(self, claim: StepClaim) -> None:
        for _ in range(STEPS - 1):
            [claim] = self._transitions.succeed(claim.ref, claim.attempt, {}).claims

    def close(self) -> None:
        """Close the connections."""
        self._notifications.close()
        self._database.close()


def measure(stack: Stack) -> list[Figure]:
    """Measure successes of steps per second, beside one-row transactions of as many clients."""
    with postgres_process() as dsn:
        transitions = Transitions(dsn)
        rounds = [
            (transitions.rate(), commit_rate(dsn, rows=CLIENTS * STEPS, threads=CLIENTS))
            for _ in range(stack.scale.rounds)
        ]
        transitions.close()
    baseline = f"one-row transactions of {CLIENTS} clients"
    return [Figure.of_rounds("transitions_16_clients_vs_plain_commits", "/s", baseline=baseline, rounds=rounds)]


BENCHMARK = Benchmark(names=("transitions_16_clients_vs_plain_commits",), measure=measure)
