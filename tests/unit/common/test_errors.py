"""Errors as data: what crosses a process comes back, from older and newer versions too."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_common.errors import (
    BackendUnavailable,
    CitadelError,
    InvalidInput,
    TextRejected,
    UnknownModel,
    from_data,
    from_result,
)
from citadel_common.text import printable
from citadel_contracts.errors import KINDS, ErrorData, FieldError

shown = st.text(st.characters(exclude_categories=["Cs"])).map(printable)
"""Text as errors hold it: without control characters."""
named = shown.filter(bool)
places = st.one_of(st.none(), st.integers(0, 1000))
sparse = st.builds(
    ErrorData,
    code=st.sampled_from([*KINDS, "of_a_newer_version"]),
    message=named,
    field=st.one_of(st.none(), named),
    index=places,
    retryable=st.booleans(),
    retry_after=st.one_of(st.none(), st.floats(0, 1e6)),
    errors=st.lists(st.builds(FieldError, pointer=shown, detail=shown)).map(tuple),
)


@given(sparse)
def test_data_come_back_from_json_and_from_the_exception(data):
    read = ErrorData.model_validate_json(data.model_dump_json())
    assert read == data
    assert from_data(read).data == data


@given(sparse)
def test_an_exception_comes_back_from_pickle(data):
    error = pickle.loads(pickle.dumps(from_data(data)))
    assert error.data == data
    assert type(error) is type(from_data(data))
    assert error.status == data.status


def test_only_what_is_known_is_sent():
    assert BackendUnavailable("down").data.model_dump() == {
        "code": "backend_unavailable",
        "message": "down",
        "retryable": True,
    }


@pytest.mark.parametrize(("code", "retryable"), [("backend_unavailable", True), ("text_rejected", False)])
def test_the_code_says_what_an_older_version_did_not(code, retryable):
    error = from_data(ErrorData.model_validate({"code": code, "message": "as ever"}))
    assert (error.code, error.retryable, error.status) == (code, retryable, KINDS[code].status)


@pytest.mark.parametrize(("retryable", "status"), [(True, 503), (False, 500)])
def test_a_code_of_a_newer_version_is_kept(retryable, status):
    error = from_data(ErrorData(code="of_a_newer_version", message="new", retryable=retryable))
    assert (type(error), error.code, error.status) == (CitadelError, "of_a_newer_version", status)


def test_a_result_of_an_older_version_names_the_class():
    error = from_result({"exc_type": "UnknownModel", "exc_message": ["none"], "exc_module": "citadel_common.errors"})
    assert (type(error), error.message, error.status) == (UnknownModel, "none", 404)


@pytest.mark.parametrize("stored", [None, "text", {"exc_type": "ValueError", "exc_message": ["a", 1]}])
def test_a_result_of_somebody_else_is_internal(stored):
    assert from_result(stored).code == "internal"


def test_an_error_names_the_field_as_its_reader_does():
    worker = TextRejected.at("text", "is refused", 1)
    assert worker.message == "text[1]: is refused"
    api = worker.about("input", 3)
    assert (type(api), api.message, api.field, api.index) == (TextRejected, "input[3]: is refused", "input", 3)
    assert api.errors == (FieldError(pointer="/input/3", detail="is refused"),)


def test_an_error_about_nothing_yet_is_led_by_its_field():
    error = BackendUnavailable("down", retry_after=3).about("input")
    assert (error.message, error.retry_after, error.retryable) == ("input: down", 3, True)


@pytest.mark.parametrize(
    ("field", "index", "pointer"),
    [("text", None, "/text"), ("text", 3, "/text/3"), ("for_each.items", None, "/for_each/items"),
     ("requests[2].text", 1, "/requests/2/text/1")],
)  # fmt: skip
def test_a_field_has_a_json_pointer(field, index, pointer):
    assert InvalidInput.at(field, "is bad", index).errors[0].pointer == pointer


@pytest.mark.parametrize("body", [{}, {"code": "invalid_input"}, {"code": "nobody_listed_this"}])
def test_a_class_without_a_code_of_its_own_cannot_be_defined(body):
    with pytest.raises(TypeError, match="needs a code of its own"):
        type("Misfit", (InvalidInput,), body)
