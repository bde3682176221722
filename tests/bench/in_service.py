"""Steps that do nothing, one run at a time, by the engine in this process: the cost of a step within the service.

Run as `python -m tests.bench.in_service DSN RUNS STEPS`; prints a line of JSON.
"""

import json
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, ClassVar, cast

import uvloop
from pydantic import SecretStr

from citadel_common.loop_thread import LoopThread
from citadel_common.settings.postgres import PostgresSettings
from citadel_common.stores.postgres import Database
from citadel_orchestration.db.admission import Slots
from citadel_orchestration.db.migrate import migrate
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.definition.models import DefinitionLimits
from citadel_orchestration.engine.dispatch import Dispatcher
from citadel_orchestration.engine.engine import Engine, EngineParts
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.sub_runs import SubRuns
from citadel_orchestration.engine.submission import Definitions, Origin, Submissions, new_run_id
from citadel_orchestration.engine.transactions import RunTransactions
from citadel_orchestration.step_types import Execute, Output, Parameters, StepCall, StepEffect, StepType, StepTypes

if TYPE_CHECKING:
    from celery import Celery

    from citadel_orchestration.engine.parked_outputs import ParkedOutputs
    from citadel_orchestration.engine.sent_texts import SentTexts


class Nothing(Parameters):
    """No parameters."""


class Noop(StepType[Nothing]):
    """A step that returns at once."""

    name: ClassVar[str] = "noop"
    parameters = Nothing
    outputs: ClassVar[frozenset[str]] = frozenset({"ok"})

    def begin(self, parameters: Nothing) -> StepEffect:
        """Execute."""
        del parameters
        return Execute(run=_ok)


async def _ok(call: StepCall) -> Output:
    del call
    return {"ok": True}


class Unknown:
    """A catalog without entries; no step here reads it."""

    def endpoint_problem(self, name: str) -> str | None:
        """Return None."""
        del name

    def model_dimensions(self, model: str | None) -> int | None:
        """Return None."""
        del model

    def collection_vectors(self, collection: str) -> dict[str, int] | None:
        """Return None."""
        del collection


def main() -> None:
    """Run one workflow after the other."""
    dsn, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    migrate(dsn)
    database = Database(SecretStr(dsn), PostgresSettings(), name="bench")
    database.open()
    types = StepTypes([Noop()])
    definitions = Definitions(types)
    submissions = Submissions(types=types, catalog=Unknown(), limits=DefinitionLimits())
    transactions = RunTransactions(database=database, definitions=definitions, owner="bench", lease=30.0)
    transitions = StepTransitions(transactions, max_output_bytes=2**20)
    commands = RunCommands(transactions)
    ended = threading.Event()
    parts = EngineParts(
        database=database,
        transitions=transitions,
        sub_runs=SubRuns(transactions, transitions),
        commands=commands,
        definitions=definitions,
        submissions=submissions,
        loop=LoopThread("steps", loop_factory=uvloop.new_event_loop),
        dispatcher=Dispatcher(cast("Celery", None)),
        slots=Slots(database=database, owner="bench", lease=30.0),
        resources=(),
        answer=lambda _: ended.set(),
        parked=cast("ParkedOutputs", None),
        texts=cast("SentTexts", None),
    )
    engine = Engine(parts, max_in_flight=100, stopping=threading.Event())
    definition = submissions.check({"steps": [{"step_id": f"s{n}", "type": "noop"} for n in range(steps)]})

    def run() -> float:
        ended.clear()
        started = time.perf_counter()
        new = submissions.run_of(definition, run_id=new_run_id(), origin=Origin(reply_to="bench"))
        for step_id in commands.submit(new).ready:
            engine.run_step(StepRef(run_id=new.run_id, step_id=step_id))
        ended.wait(30)
        return (time.perf_counter() - started) * 1000 / steps

    for _ in range(5):
        run()
    taken = [run() for _ in range(runs)]
    print(json.dumps({"p50_ms": statistics.median(taken)}), flush=True)


main()
