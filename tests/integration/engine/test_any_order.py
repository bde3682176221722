"""Whatever is lost, late, doubled or out of order: a run ends, as its steps say it must, and records each once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.engine.simulated import Fate, PlannedStep, Simulation, unfinished
from tests.support.record import Record

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
def plans(draw):
    """Up to eight steps that depend on one another in some way."""
    ids = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    return [draw(planned(step_id, ids[:number])) for number, step_id in enumerate(ids)]


@st.composite
def planned(draw, step_id, earlier):
    """A step behind some of the earlier ones."""
    kind = draw(st.sampled_from(["task", "task", "task", "task", "delay", "signal"]))
    return PlannedStep(
        step_id=step_id,
        depends_on=draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else [],
        kind=kind,
        holds=draw(st.sampled_from([True, True, True, False])),
        tolerant=draw(st.booleans()),
        max_attempts=draw(st.integers(1, 3)),
        fate=draw(FATES),
        items=draw(st.none() | st.lists(FATES, max_size=5)) if kind == "task" else None,
        max_parallel=draw(st.integers(1, 3)),
    )


@pytest.fixture(scope="module")
def shared(postgres_server):
    """A record that the examples share."""
    with postgres_server.database() as dsn, Record(dsn) as record:
        yield record


def upset(simulation, chance, actions):
    """Let things go wrong for a while."""
    for _ in range(60):
        if simulation.is_over:
            return
        getattr(simulation, chance.choice(actions))(chance)
        simulation.assert_sound()


def assert_ended_as_planned(simulation):
    record, run_id = simulation.record, simulation.run_id
    fails = any(step.fails_run for step in simulation.plan)
    assert simulation.status == ("failed" if fails and not simulation.healed else "succeeded")
    if simulation.status == "succeeded":
        assert unfinished(record, run_id) == 0
    states = record.steps(run_id)
    for step in simulation.plan:
        allowed = {"succeeded", step.end} if simulation.healed else {step.end} | ({"cancelled"} if fails else set())
        assert states[step.step_id] in allowed


@settings(max_examples=50)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_a_run_ends_as_its_steps_say(shared, plan, seed):
    simulation = Simulation(shared, plan)
    upset(simulation, random.Random(seed), ACTIONS)
    simulation.finish()
    assert_ended_as_planned(simulation)
    simulation.assert_recorded()
    for claim in simulation.past:
        simulation.execute(claim)
    simulation.assert_recorded()


@settings(max_examples=40)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_a_failed_run_is_retried_from_where_it_failed(shared, plan, seed):
    simulation = Simulation(shared, plan)
    upset(simulation, random.Random(seed), ACTIONS)
    simulation.finish()
    if simulation.status != "failed":
        return
    simulation.healed = True
    simulation.signalled.clear()
    simulation.take(shared.commands.retry(simulation.run_id, deadline=None))
    upset(simulation, random.Random(seed), ACTIONS)
    simulation.finish()
    assert_ended_as_planned(simulation)
    simulation.assert_recorded()


@settings(max_examples=20)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_a_cancelled_run_stays_cancelled(shared, plan, seed):
    simulation = Simulation(shared, plan)
    upset(simulation, random.Random(seed), [*ACTIONS, "cancel"])
    if not simulation.was_cancelled:
        return
    done = shared.steps(simulation.run_id)
    for claim in [*simulation.hands, *simulation.past]:
        simulation.execute(claim)
    simulation.sweep(random.Random(seed))
    assert simulation.status == "cancelled"
    assert shared.steps(simulation.run_id) == done
    shared.assert_recorded_once(simulation.run_id)
