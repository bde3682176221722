"""A worker that only pretends to execute steps, under the command of a test that knows how each must end."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from hypothesis import strategies as st

from citadel_common.errors import CitadelError, InvalidInput, LlmUnavailable
from citadel_contracts.runs import FINISHED
from citadel_orchestration.db import lost_work
from citadel_orchestration.db.models import NO_ITEM, Effects, StepClaim, StepRef
from citadel_orchestration.engine.scope import Reader, steps_of
from tests.support.engine_db import EngineDatabase

MOST_DEATHS = 3
Kind = Literal["task", "delay", "signal"]


@dataclass(frozen=True, kw_only=True)
class Fate:
    """How one execution ends: after some transient failures, well or badly."""

    failures: int = 0
    bad: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step and how it will end; `items` are the fates of the items of a `for_each`."""

    step_id: str
    depends_on: list[str]
    kind: Kind = "task"
    holds: bool = True
    tolerant: bool = False
    max_attempts: int = 1
    fate: Fate = Fate()
    items: list[Fate] | None = None
    max_parallel: int = 1

    @property
    def written(self) -> dict[str, Any]:
        """The step in the form of a definition."""
        written: dict[str, Any] = {
            "step_id": self.step_id,
            "depends_on": self.depends_on,
            "when": "context.yes" if self.holds else "!context.yes",
            "on_error": "continue" if self.tolerant else "fail",
            "retry": {"max_attempts": self.max_attempts, "delay": 0, "max_delay": 0},
            "type": "llm_query" if self.kind == "task" else "wait",
            "parameters": {"task": {"query": "q"}, "delay": {"duration": 0}, "signal": {"signal": self.step_id}}[
                self.kind
            ],
        }
        if self.items is not None:
            written["for_each"] = {"items": list(range(len(self.items))), "max_parallel": self.max_parallel}
        return written

    def fails(self, fate: Fate) -> bool:
        """Return True if an execution with that fate ends badly."""
        return fate.bad or fate.failures >= self.max_attempts

    @property
    def end(self) -> str:
        """The state in which it must end, unless the run ends first."""
        if not self.holds:
            return "skipped"
        if self.kind != "task":
            return "succeeded"
        if self.items is not None:
            return "failed" if not self.tolerant and any(map(self.fails, self.items)) else "succeeded"
        return "failed" if self.fails(self.fate) else "succeeded"

    @property
    def fails_run(self) -> bool:
        """True if its failure must fail the run."""
        return self.end == "failed" and not self.tolerant

    def fate_of(self, ref: StepRef) -> Fate:
        """Return how an execution of it ends."""
        return self.fate if self.items is None else self.items[ref.item]


@dataclass
class Simulation:
    """One run of planned steps.

    Attributes:
        hands: Claims under execution.
        past: Claims that were completed, lost or handed back.
        outputs: What was recorded, by step and item.
    """

    db: EngineDatabase
    plan: list[PlannedStep]
    healed: bool = False
    hands: list[StepClaim] = field(default_factory=list)
    past: list[StepClaim] = field(default_factory=list)
    outputs: dict[StepRef, Any] = field(default_factory=dict)
    failures: Counter[StepRef] = field(default_factory=Counter)
    deaths: Counter[StepRef] = field(default_factory=Counter)
    signalled: set[str] = field(default_factory=set)
    was_cancelled: bool = False

    def __post_init__(self) -> None:
        self.steps = {step.step_id: step for step in self.plan}
        self.run_id = self.db.submit({"context": {"yes": True}, "steps": [step.written for step in self.plan]})

    @property
    def is_over(self) -> bool:
        """True once the run has ended."""
        return self.status in FINISHED

    @property
    def status(self) -> str:
        """The run's state."""
        return self.db.status(self.run_id)

    def take(self, effects: Effects) -> bool:
        """Take the claims of a transition; return whether it was applied."""
        self.hands.extend(effects.claims)
        return effects.applied

    def start(self, chance: random.Random) -> None:
        """Deliver the message of any step, ready or not."""
        self.take(self.db.transitions.start(StepRef(run_id=self.run_id, step_id=chance.choice(self.plan).step_id)))

    def complete(self, chance: random.Random) -> None:
        """Bring an execution to its end."""
        if self.hands:
            claim = self.hands.pop(chance.randrange(len(self.hands)))
            self.past.append(claim)
            self.execute(claim)

    def again(self, chance: random.Random) -> None:
        """Let a completion come late, or once more."""
        if self.past:
            claim = chance.choice(self.past)
            before = self.row(claim.ref)
            self.execute(claim)
            assert before[0] == claim.attempt or self.row(claim.ref) == before

    def row(self, ref: StepRef) -> tuple[Any, ...]:
        """Return attempt and state of a step or an item."""
        query = "SELECT attempt, status FROM steps WHERE run_id = %s AND step_id = %s AND item = %s"
        return self.db.rows(query, ref.run_id, ref.step_id, ref.item)[0]

    def lose(self, chance: random.Random) -> None:
        """Let the worker die that executes a step."""
        mortal = [claim for claim in self.hands if self.deaths[claim.ref] < MOST_DEATHS]
        if mortal:
            claim = chance.choice(mortal)
            self.hands.remove(claim)
            self.past.append(claim)
            self.deaths[claim.ref] += 1
            self.expire(claim.ref)

    def hand_back(self, chance: random.Random) -> None:
        """Give a step back."""
        if self.hands:
            claim = self.hands.pop(chance.randrange(len(self.hands)))
            self.past.append(claim)
            self.db.transitions.hand_back(claim.ref, claim.attempt)

    def sweep(self, chance: random.Random) -> None:
        """Look for what was left lying, twice, as two workers at once do."""
        recovery = self.db.recovery
        searches = [
            (lost_work.unstarted_steps, recovery.take_over),
            (lost_work.abandoned_steps, recovery.take_over),
            (lost_work.due_steps, recovery.wake),
        ]
        chance.shuffle(searches)
        for find, act in searches:
            found = [(ref, attempt) for ref, attempt in self.db.find(find) if ref.run_id == self.run_id]
            for ref, attempt in found * 2:
                self.take(act(ref, attempt))

    def send_signal(self, chance: random.Random) -> None:
        """Send a signal, whether its step waits or not."""
        wanted = [step.step_id for step in self.plan if step.kind == "signal" and step.step_id not in self.signalled]
        if wanted and not self.is_over:
            name = chance.choice(wanted)
            self.signalled.add(name)
            self.take(self.db.commands.signal(self.run_id, name, {"signal": name}))

    def pause(self, chance: random.Random) -> None:
        """Pause the run."""
        del chance
        if not self.is_over:
            self.db.commands.pause(self.run_id)

    def resume(self, chance: random.Random) -> None:
        """Resume the run."""
        del chance
        if not self.is_over:
            self.take(self.db.commands.resume(self.run_id))

    def cancel(self, chance: random.Random) -> None:
        """Cancel the run."""
        del chance
        if not self.is_over:
            self.take(self.db.commands.cancel(self.run_id))
            self.was_cancelled = True

    def expire(self, ref: StepRef | None = None) -> None:
        """Let the lease of a step run out; without one, of all that nobody executes."""
        held = [claim.ref for claim in self.hands]
        for step_id, item in self.db.rows("SELECT step_id, item FROM steps WHERE run_id = %s", self.run_id):
            place = StepRef(run_id=self.run_id, step_id=step_id, item=item)
            if place == ref or (ref is None and place not in held):
                self.db.rows(
                    "UPDATE steps SET lease_until = now() - interval '1 second' WHERE run_id = %s AND step_id = %s"
                    " AND item = %s AND status IN ('ready', 'running')",
                    *(self.run_id, step_id, item),
                )

    def finish(self) -> None:
        """Let nothing further go wrong, until the run has ended."""
        chance = random.Random(0)
        for _ in range(200):
            self.resume(chance)
            self.send_signal(chance)
            self.expire()
            self.sweep(chance)
            while self.hands:
                self.complete(chance)
            if self.is_over:
                return
        raise AssertionError(f"the run does not end: {self.record.steps(self.run_id)}")

    def execute(self, claim: StepClaim) -> None:
        """Do what an engine does with a claimed step."""
        ref, attempt, transitions = claim.ref, claim.attempt, self.db.transitions
        step = self.steps[ref.step_id]
        if ref.item == NO_ITEM and not step.holds:
            self.take(transitions.skip(ref, attempt))
        elif ref.item == NO_ITEM and step.items is not None:
            items = list(range(len(step.items)))
            self.take(transitions.expand(ref, attempt, items, max_parallel=step.max_parallel))
        elif step.kind == "task":
            self.answer(step, ref, attempt)
        else:
            name = ref.step_id if step.kind == "signal" else None
            self.take(transitions.wait(ref, attempt, seconds=None if name else 0.0, signal=name))

    def answer(self, step: PlannedStep, ref: StepRef, attempt: int) -> None:
        """End an execution as its fate wants it."""
        fate = Fate() if self.healed else step.fate_of(ref)
        error: CitadelError | None = None
        if self.failures[ref] < fate.failures:
            error = LlmUnavailable()
        elif fate.bad:
            error = InvalidInput()
        if error is not None:
            if self.take(self.db.transitions.fail(ref, attempt, error)):
                self.failures[ref] += 1
            return
        output = {"n": random.random()}
        if self.take(self.db.transitions.succeed(ref, attempt, output)):
            assert ref not in self.outputs
            self.outputs[ref] = output

    def assert_sound(self) -> None:
        """Assert what holds at any time."""
        for step in self.plan:
            if step.items is not None:
                busy = sum(
                    state in ("ready", "running", "waiting") for state in self.db.items(self.run_id, step.step_id)
                )
                assert busy <= step.max_parallel

    def assert_recorded(self) -> None:
        """Assert that the ended run has recorded each step once, with the first output it had."""
        self.db.assert_recorded_once(self.run_id)
        recorded: dict[StepRef, Any] = {}
        with self.db.database.cursor() as cursor:
            found = steps_of(Reader(cursor), self.run_id, list(self.steps))
        for step_id, step in self.steps.items():
            output = found[step_id]["output"]
            if step.kind == "task" and step.items is None and output is not None:
                recorded[StepRef(run_id=self.run_id, step_id=step_id)] = output
            elif step.items:
                whole = enumerate(output or [])
                refs = {StepRef(run_id=self.run_id, step_id=step_id, item=item): value for item, value in whole}
                recorded |= {ref: value for ref, value in refs.items() if value is not None}
        assert recorded == self.outputs


def unfinished(db: EngineDatabase, run_id: UUID) -> int:
    """Return the run's own count of steps that have not ended."""
    return int(db.rows("SELECT unfinished FROM runs WHERE run_id = %s", run_id)[0][0])


ACTIONS = ["complete"] * 6 + [
    "start",
    "sweep",
    "sweep",
    "again",
    "again",
    "lose",
    "hand_back",
    "send_signal",
    "pause",
    "resume",
]
FATES = st.builds(Fate, failures=st.sampled_from([0, 0, 0, 1, 2]), bad=st.sampled_from([False, False, False, True]))


@st.composite
def plans(draw: st.DrawFn, *, least: int = 1, most_dependencies: int = 3) -> list[PlannedStep]:
    """Draw `least` to eight steps that depend on one another in some way."""
    ids = [f"s{number}" for number in range(draw(st.integers(least, 8)))]
    return [draw(planned(step_id, ids[:number], most_dependencies)) for number, step_id in enumerate(ids)]


@st.composite
def planned(draw: st.DrawFn, step_id: str, earlier: list[str], most_dependencies: int) -> PlannedStep:
    """Draw a step behind some of the earlier ones."""
    kind = draw(st.sampled_from(["task", "task", "task", "task", "delay", "signal"]))
    return PlannedStep(
        step_id=step_id,
        depends_on=draw(st.lists(st.sampled_from(earlier), unique=True, max_size=most_dependencies)) if earlier else [],
        kind=kind,
        holds=draw(st.sampled_from([True, True, True, False])),
        tolerant=draw(st.booleans()),
        max_attempts=draw(st.integers(1, 3)),
        fate=draw(FATES),
        items=draw(st.none() | st.lists(FATES, max_size=5)) if kind == "task" else None,
        max_parallel=draw(st.integers(1, 3)),
    )


def upset(simulation: Simulation, chance: random.Random, actions: list[str], *, times: int = 60) -> None:
    """Let things go wrong for a while."""
    for _ in range(times):
        if simulation.is_over:
            return
        getattr(simulation, chance.choice(actions))(chance)
        simulation.assert_sound()
