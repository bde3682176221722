"""Whatever is lost, late, doubled or out of order: a run ends as its steps require, and records each of them once."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.engine.simulated import ACTIONS, Simulation, plans, unfinished, upset


def assert_ended_as_planned(simulation):
    db, run_id = simulation.db, simulation.run_id
    fails = any(step.fails_run for step in simulation.plan)
    assert simulation.status == ("failed" if fails and not simulation.healed else "succeeded")
    if simulation.status == "succeeded":
        assert unfinished(db, run_id) == 0
    states = db.steps(run_id)
    for step in simulation.plan:
        allowed = {"succeeded", step.end} if simulation.healed else {step.end} | ({"cancelled"} if fails else set())
        assert states[step.step_id] in allowed


@settings(max_examples=50)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_a_run_ends_as_its_steps_require(shared_record, plan, seed):
    simulation = Simulation(shared_record, plan)
    upset(simulation, random.Random(seed), ACTIONS)
    simulation.finish()
    assert_ended_as_planned(simulation)
    simulation.assert_recorded()
    for claim in simulation.past:
        simulation.execute(claim)
    simulation.assert_recorded()


@settings(max_examples=40)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_a_failed_run_is_retried_from_where_it_failed(shared_record, plan, seed):
    simulation = Simulation(shared_record, plan)
    upset(simulation, random.Random(seed), ACTIONS)
    simulation.finish()
    if simulation.status != "failed":
        return
    simulation.healed = True
    simulation.signalled.clear()
    simulation.take(shared_record.commands.retry(simulation.run_id, deadline=None))
    upset(simulation, random.Random(seed), ACTIONS)
    simulation.finish()
    assert_ended_as_planned(simulation)
    simulation.assert_recorded()


@settings(max_examples=20)
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_a_cancelled_run_stays_cancelled(shared_record, plan, seed):
    simulation = Simulation(shared_record, plan)
    upset(simulation, random.Random(seed), [*ACTIONS, "cancel"])
    if not simulation.was_cancelled:
        return
    done = shared_record.steps(simulation.run_id)
    for claim in [*simulation.hands, *simulation.past]:
        simulation.execute(claim)
    simulation.sweep(random.Random(seed))
    assert simulation.status == "cancelled"
    assert shared_record.steps(simulation.run_id) == done
    shared_record.assert_recorded_once(simulation.run_id)
