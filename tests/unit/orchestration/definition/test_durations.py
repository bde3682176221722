"""Durations as they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_orchestration.definition.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), (3, 3.0), (0.25, 0.25), ("0s", 0.0)],
)
def test_durations_are_read_as_seconds(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "s", "1", "1d", "-1s", "1 s", "1e3s", "١s", "1s\n", None, True, -1, float("nan"), float("inf"), []]
)
def test_other_forms_of_durations_are_refused(written):
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(written)


@pytest.mark.parametrize(("seconds", "written"), [(0, "0ms"), (0.5, "500ms"), (90, "90s"), (7200, "2h"), (120, "2m")])
def test_durations_are_formatted_in_the_shortest_form(seconds, written):
    assert format_duration(seconds) == written


@given(st.integers(min_value=0, max_value=10**10))
def test_a_formatted_duration_reads_as_the_same_duration(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-9)
