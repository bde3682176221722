"""Errors of texts, and the error with which their task ends."""

from hypothesis import given
from hypothesis import strategies as st

from citadel_common.embeddings.vectors import Stored
from citadel_common.errors import BackendUnavailable, BadVector, DeadlineExceeded, TextRejected, UnknownModel
from citadel_embeddings.engine import EmbedResponse
from citadel_embeddings.items import TextResult
from citadel_embeddings.results import name_text, task_error
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
