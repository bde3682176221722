"""Errors of texts, and the error with which their task ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from citadel_common.embeddings.vectors import Stored
from citadel_common.errors import BackendUnavailable, BadVector, DeadlineExceeded, TextRejected, UnknownModel
from citadel_contracts.workflows import EmbedPart, EmbedStep, StepEmbedded
from citadel_embeddings.engine import EmbedResponse
from citadel_embeddings.items import TextResult
from citadel_embeddings.results import name_text, task_error
from citadel_embeddings.step_vectors import answer_of
from tests.support.engine import vector_of

errors = st.sampled_from([BackendUnavailable(), TextRejected(), BadVector(), DeadlineExceeded(), None])


@given(st.lists(errors, min_size=1), st.booleans())
def test_the_worst_error_is_one_that_a_retry_may_cure_or_any_when_no_text_succeeded(found, last_try):
    vector = TextResult(stored=Stored(vector_of("x")))
    response = EmbedResponse(model="m", results=[TextResult.failed(error) if error else vector for error in found])
    error = task_error(response, last_try=last_try)
    if not last_try and any(isinstance(e, BackendUnavailable) for e in found):
        assert error.retryable
    elif all(found):
        assert error in found
    else:
        assert error is None


def test_an_error_about_a_text_names_the_text():
    refused = name_text(TextRejected("no"), ["a", "b"], 1)
    assert (refused.message, refused.field, refused.index) == ("text[1]: no", "text", 1)
    alone = name_text(BadVector("no"), "a", 0)
    assert (alone.message, alone.field, alone.index) == ("text: no", "text", None)


def test_an_error_about_anything_else_stays_as_it_is():
    for error in (UnknownModel.at("model", "none"), BackendUnavailable("down")):
        assert name_text(error, "a", 0) is error


def test_vectors_that_are_too_many_for_an_answer_are_left_out_with_the_reason():
    step = EmbedStep(
        run_id="r", step_id="s", item=-1, attempt=1, parts=[EmbedPart(texts=["a"]), EmbedPart(texts=["b"])]
    )
    vector = TextResult(stored=Stored(np.ones(4096, dtype="<f4")))
    fits = EmbedResponse(model="m", results=[vector] * 1000)
    over = EmbedResponse(model="m", results=[vector] * 600)
    whole = StepEmbedded.model_validate_json(answer_of(step, [fits, BackendUnavailable()], None))
    assert (len(whole.parts[0].vectors), whole.parts[1].error.code) == (1000, "backend_unavailable")
    refused = StepEmbedded.model_validate_json(answer_of(step, [fits, over], None))
    assert [(part.vectors, part.error.code) for part in refused.parts] == [([], "payload_too_large")] * 2
    assert "34,956,800 bytes as base64; an answer may have 33,554,432" in refused.parts[0].error.message
