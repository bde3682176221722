"""A step type needs nothing but its class: the worker is handed types that Citadel does not ship."""

import asyncio

import pytest

from citadel_common.errors import InvalidDefinition
from citadel_common.stores.redis import connect_async
from citadel_common.telemetry import NULL_METRICS
from citadel_orchestration.definition.plan import plan
from citadel_orchestration.settings import ApiSettings
from citadel_orchestration.step_types import StepTypes
from citadel_orchestration.wiring import wire
from tests.integration.engine.own_step_types import OWN_TYPES, Shout
from tests.support.engine_db import EngineDatabase

DIMENSIONS = 768


def step(step_id, type_, **parameters):
    return {"step_id": step_id, "type": type_, "parameters": parameters}


@pytest.fixture(scope="module")
def platform_with_types(platform):
    """One embeddings worker, and an orchestration worker that has the types."""
    platform.embeddings()
    platform.orchestration(module="tests.integration.engine.own_step_types")
    return platform


@pytest.fixture
def submissions(redis_url, postgres_dsn):
    """The API's checks, with the types."""
    api = {"keyless": "loopback"}
    settings = ApiSettings.model_validate({"broker_url": redis_url, "postgres_dsn": postgres_dsn, "api": api})
    client = connect_async(settings.results, settings.stores)
    yield wire(settings, client, NULL_METRICS, name="tests", types=OWN_TYPES).submissions
    asyncio.run(client.aclose())


@pytest.mark.parametrize(
    ("steps", "output"),
    [
        pytest.param([step("a", "shout", text="hey")], {"text": "HEY"}, id="execute"),
        pytest.param([step("a", "measure", text="hey")], {"numbers": DIMENSIONS}, id="embed-then-execute"),
        pytest.param([step("a", "stamp", text="hey")], {"stamp": "h", "numbers": DIMENSIONS}, id="embed"),
        pytest.param([step("a", "nap", seconds=0.01)], {}, id="wait"),
    ],
)
def test_each_effect_is_carried_out(platform_with_types, steps, output):
    result = platform_with_types.execute({"steps": steps})

    assert (result["success"], result["output"]) == (True, output)


def test_a_run_is_started_and_its_output_comes_back(platform_with_types):
    play = {"steps": [step("b", "shout", text="${{ context.word }}")]}
    result = platform_with_types.execute({"steps": [step("a", "perform", play=play, props={"word": "boo"})]})

    assert result["output"]["output"] == {"text": "BOO"}


def test_a_signal_ends_a_wait(platform_with_types):
    with EngineDatabase(platform_with_types.dsn, owner=None, lease=1.0, types=OWN_TYPES) as db:
        run_id = db.submit({"steps": [step("a", "nap", bell="door")]})
        db.commands.signal(run_id, "door", {"who": "me"})

        assert db.ended(run_id) == "succeeded"
        assert db.rows("SELECT output FROM runs WHERE run_id = %s", run_id) == [(b'{"who":"me"}',)]


def test_outputs_go_from_type_to_type(platform_with_types):
    steps = [step("a", "shout", text="hey"), step("b", "stamp", text="${{ steps.a.output.text }}")]

    assert platform_with_types.execute({"steps": steps})["output"]["stamp"] == "H"


def test_definitions_are_checked_by_the_types(submissions):
    nested = {"steps": [step("c", "shout", text="psst")]}
    raw = {
        "steps": [
            step("a", "shout", text="psst"),
            step("b", "shout", text="${{ steps.a.output.volume }}"),
            step("d", "perform", play=nested, props={}),
        ]
    }
    with pytest.raises(InvalidDefinition) as raised:
        submissions.check(raw)

    assert {(problem.pointer, problem.code) for problem in raised.value.errors} == {
        ("/steps/0/parameters/text", "step_check"),
        ("/steps/1/parameters/text", "unknown_output"),
        ("/steps/2/parameters/play/steps/0/parameters/text", "step_check"),
    }


def test_plans_count_what_the_types_call(submissions):
    raw = {"steps": [step("a", "shout", text="hey"), step("b", "measure", text="${{ steps.a.output.text }}")]}
    shout, measure = plan(submissions.check(raw))["steps"]

    assert (shout["queue"], shout["calls"]["shouts"]) == ("orchestration", 1)
    assert (measure["queue"], measure["calls"]["embedding_texts"]) == ("embeddings", 1)


def test_two_types_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two step types 'shout'"):
        StepTypes([Shout(), Shout()])
