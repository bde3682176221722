"""Durations as they are written."""

import pytest

from citadel_orchestration.definition.models import read_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), (3, 3.0), (0.25, 0.25), ("0s", 0.0)],
)
def test_durations_are_read_as_seconds(written, seconds):
    assert read_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "s", "1", "1d", "-1s", "1 s", "1e3s", "١s", "1s\n", None, True, -1, float("nan"), float("inf"), []]
)
def test_other_forms_of_durations_are_refused(written):
    with pytest.raises(ValueError, match="must be a duration"):
        read_duration(written)
