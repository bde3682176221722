"""What the errors of texts mean for their task."""

from hypothesis import given
from hypothesis import strategies as st

from citadel_common.errors import BackendUnavailable, BadVector, DeadlineExceeded, TextRejected, UnknownModel
from citadel_embeddings.engine import Outcome
from citadel_embeddings.results import named, worst
from tests.support.engine import vector_of

errors = st.sampled_from([BackendUnavailable(), TextRejected(), BadVector(), DeadlineExceeded(), None])


@given(st.lists(errors, min_size=1), st.booleans())
def test_the_worst_error(found, last_try):
    outcome = Outcome(model="m", vectors=[None if error else vector_of("x") for error in found])
    outcome.errors = {index: error for index, error in enumerate(found) if error}
    error = worst(outcome, last_try=last_try)
    if not last_try and any(isinstance(e, BackendUnavailable) for e in found):
        assert error.transient
    elif all(found):
        assert error in found
    else:
        assert error is None


def test_errors_of_a_text_are_led_by_its_field():
    refused = named(TextRejected("no"), ["a", "b"], 1)
    assert (refused.message, refused.field, refused.index) == ("text[1]: no", "text", 1)
    alone = named(BadVector("no"), "a", 0)
    assert (alone.message, alone.field, alone.index) == ("text: no", "text", None)


def test_errors_of_other_things_stay_as_they_are():
    for error in (UnknownModel.at("model", "none"), BackendUnavailable("down")):
        assert named(error, "a", 0) is error
