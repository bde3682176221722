"""Vectors: what is refused, and that every form gives back the same numbers."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citadel_common.embeddings.vectors import (
    Stored,
    checked,
    checked_rows,
    from_base64,
    pack,
    to_base64,
    to_json,
    unpack,
)
from citadel_common.errors import BadVector

components = st.floats(-100, 100, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.5)
vectors = hnp.arrays("<f4", st.integers(1, 40), elements=components)
nonsense = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.none() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=2) | st.lists(st.floats()))
    | st.dictionaries(st.text(max_size=2), st.integers())
)


@given(vectors, st.booleans())
def test_float32_comes_back_exactly(vector, truncated):
    back = unpack(pack(Stored(vector, truncated), "float32"))
    assert np.array_equal(back.vector, vector)
    assert back.truncated is truncated
    assert back.vector.dtype == "<f4"


@given(vectors, st.booleans())
def test_float16_comes_back_nearly(vector, truncated):
    packed = pack(Stored(vector, truncated), "float16")
    back = unpack(packed)
    assert len(packed) == 1 + 2 * vector.size
    assert np.allclose(back.vector, vector, rtol=1e-3)
    assert back.truncated is truncated
    assert back.vector.dtype == "<f4"


@given(st.binary(max_size=64))
def test_any_bytes_are_a_usable_vector_or_none(value):
    stored = unpack(value)
    assert stored is None or (np.isfinite(stored.vector).all() and stored.vector.any())


@given(vectors)
def test_forms_in_answers_are_exact(vector):
    assert np.array_equal(from_base64(to_base64(vector)), vector)
    read = np.asarray(orjson.loads(orjson.dumps(to_json(vector))), dtype="<f4")
    assert np.array_equal(read, vector)


@given(vectors)
def test_good_vectors_pass_in_any_form(vector):
    for form in (vector, vector.tolist(), vector.astype("f8"), tuple(vector.tolist())):
        assert np.array_equal(checked(form, dimensions=vector.size), vector)
        assert np.array_equal(checked(form, dimensions=None), vector)


@given(vectors, st.sampled_from([np.nan, np.inf, -np.inf, 1e300]), st.data())
def test_a_vector_with_a_component_that_is_not_finite_is_refused(vector, value, data):
    spoilt = vector.astype("f8")
    spoilt[data.draw(st.integers(0, vector.size - 1))] = value
    with pytest.raises(BadVector, match="not finite"):
        checked(spoilt, dimensions=vector.size)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([0.0, 0.0], "zero"),
        ([], "shape"),
        ([[1.0]], "shape"),
        ([1.0, 2.0, 3.0], "3 dimensions instead of 2"),
        ("text", "not a vector of numbers"),
        (None, "shape"),
        (5.0, "shape"),
        ([1.0, None], "not finite|no vector"),
        ([1, "a"], "not a vector of numbers"),
        ([10**400, 1], "not a vector of numbers"),
    ],
)
def test_the_error_names_the_problem_of_the_vector(values, problem):
    with pytest.raises(BadVector, match=problem):
        checked(values, dimensions=2)


@given(nonsense)
def test_nonsense_is_refused_or_a_vector(values):
    try:
        vector = checked(values, dimensions=None)
    except BadVector:
        return
    assert vector.ndim == 1
    assert np.isfinite(vector).all()


@given(st.lists(vectors | nonsense, max_size=6), st.none() | st.integers(1, 5))
def test_rows_checked_together_equal_rows_checked_one_by_one(rows, dimensions):
    together = checked_rows(rows, dimensions=dimensions)
    for row, found in zip(rows, together, strict=True):
        try:
            alone = checked(row, dimensions=dimensions)
        except BadVector:
            assert isinstance(found, BadVector)
        else:
            assert np.array_equal(found, alone)


@given(hnp.arrays("<f4", st.tuples(st.integers(1, 6), st.just(4)), elements=components), st.data())
def test_a_bad_row_spoils_no_other(matrix, data):
    rows = matrix.tolist()
    spoilt = data.draw(st.integers(0, len(rows) - 1))
    rows[spoilt] = data.draw(st.sampled_from([[np.nan] * 4, [0.0] * 4, [1.0] * 3, None, "x", [1, 2, 3, None]]))
    for index, found in enumerate(checked_rows(rows, dimensions=4)):
        if index == spoilt:
            assert isinstance(found, BadVector)
        else:
            assert np.array_equal(found, matrix[index])
