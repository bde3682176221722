"""What is wrong with a step `llm_query`, told when the workflow is submitted."""

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from citadel_common.settings.llm import EndpointSettings, LlmSettings
from citadel_orchestration.llm.client import LlmClients
from citadel_orchestration.steps.llm_query import LlmQuery, LlmQueryParameters

CLIENTS = LlmClients(LlmSettings(endpoints={"gpu": EndpointSettings(url="http://gpu1:8002", model="m")}))


KNOWN = SimpleNamespace(endpoint_problem=CLIENTS.endpoint_problem)


def check(**raw):
    return dict(LlmQuery(CLIENTS).check({"query": "Hi", **raw}, KNOWN))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"endpoint": "gpu"},
        {"service_endpoint": "http://gpu1:8002/api/generate"},
        {"endpoint": "${{ context.endpoint }}"},
        {"options": {"temperature": 0.1}},
        {"options": "${{ context.options }}"},
        {"response_schema": {"type": "object"}},
        {"response_schema": "${{ context.schema }}"},
        {"response_schema": {"enum": "${{ context.choices }}"}},
    ],
)
def test_good_parameters_have_no_problems(raw):
    assert check(**raw) == {}


def test_problems_of_parameters_are_listed_with_pointers():
    problems = check(
        service_endpoint="http://evil.example",
        options={"stream": True, "model": "x", "temperature": 1},
        response_schema={"type": "object", "properties": {"a": {"$ref": "https://evil.example/s"}}},
    )
    assert set(problems) == {
        "/service_endpoint", "/options/model", "/options/stream", "/response_schema/properties/a/$ref"
    }  # fmt: skip
    assert problems["/service_endpoint"].endswith("configured: gpu")


def test_an_endpoint_named_twice_is_refused():
    assert "/service_endpoint" in check(endpoint="gpu", service_endpoint="gpu")


def test_the_seeds_name_of_the_endpoint():
    assert LlmQueryParameters.model_validate({"query": "Hi", "service_endpoint": "gpu"}).endpoint == "gpu"


@pytest.mark.parametrize(
    "raw", [{}, {"query": ""}, {"query": 5}, {"query": "Hi", "schema_retries": 6}, {"query": "Hi", "prompt": "x"}]
)
def test_parameters_are_strict(raw):
    with pytest.raises(ValidationError):
        LlmQueryParameters.model_validate(raw)
