"""Which requests begin a trace: by their route's ratio."""

import pytest
from pydantic import ValidationError

from citadel_orchestration.api.http.sampling import POLLED, RouteSampling
from citadel_orchestration.settings import ApiFragment

RUN = "/v1/runs/0193b3c8-8f2e-7c41-9a57-f1a3b2c4d5e6"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", RUN),
        ("GET", f"{RUN}/events"),
        ("GET", f"{RUN}/steps/a.b-c"),
        ("GET", "/v1/tasks/any thing"),
        ("GET", "/v1/health"),
        ("GET", "/v1/queues"),
    ],
)
def test_few_polls_begin_a_trace(method: str, path: str) -> None:
    assert not RouteSampling({}, draw=lambda: POLLED).begins_trace(method, path)
    assert RouteSampling({}, draw=lambda: POLLED / 2).begins_trace(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/workflows"), ("POST", f"{RUN}/cancel"), ("DELETE", "/v1/dead-letters"), ("GET", f"{RUN}/graph")],
)
def test_each_other_request_begins_a_trace(method: str, path: str) -> None:
    assert RouteSampling({}, draw=lambda: 0.999).begins_trace(method, path)


def test_a_ratio_of_the_settings_comes_before_the_default() -> None:
    sampling = RouteSampling({"GET /v1/runs/{run_id}": 1, "POST /v1/workflows": 0}, draw=lambda: 0.0)
    assert sampling.begins_trace("GET", RUN)
    assert not sampling.begins_trace("POST", "/v1/workflows")
    assert sampling.begins_trace("GET", f"{RUN}/events")


@pytest.mark.parametrize("ratios", [{"GET /v1/runs": 1.5}, {"/v1/runs": 0.5}, {"GET /v1/runs": -0.1}])
def test_a_wrong_ratio_is_refused(ratios: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ApiFragment(trace_ratios=ratios)
