"""The lane in which a step's texts are computed."""

import pytest

from citadel_contracts import Lane
from citadel_contracts.workflows import EmbedPart, EmbedStep
from citadel_embeddings.step_vectors import lane_of


def step(**fields):
    return EmbedStep(run_id="r", step_id="s", item=-1, attempt=1, parts=[EmbedPart(texts=["a"])], **fields)


@pytest.mark.parametrize(
    ("fields", "lane"),
    [
        pytest.param({}, Lane.INTERACTIVE, id="the message's"),
        pytest.param({"lane": Lane.BATCH}, Lane.BATCH, id="the step's own"),
        pytest.param({"echo": {"form": "embedding"}}, Lane.INTERACTIVE, id="the message's, with an echo"),
        pytest.param({"echo": {"form": "chunk", "ids": [1]}}, Lane.BATCH, id="a chunk of an older engine"),
    ],
)
def test_a_steps_own_lane_goes_before_that_of_the_message(fields, lane):
    assert lane_of(step(**fields), Lane.INTERACTIVE) == lane


def test_the_lane_crosses_the_queue_as_a_number():
    sent = step(lane=Lane.BATCH).model_dump_json(exclude_defaults=True)

    assert '"lane":6' in sent
    assert EmbedStep.model_validate_json(sent).lane is Lane.BATCH
