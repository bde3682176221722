"""Null means absent, for every field with a default of everything that clients send."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from citadel_contracts import api, embeddings, maintenance, monitoring, runs, workflows
from citadel_contracts.api import Body
from citadel_contracts.base import Payload
from citadel_orchestration.definition import models
from citadel_orchestration.definition.models import Written
from citadel_orchestration.step_types import Parameters
from citadel_orchestration.steps import embedding, llm_query, vector_search, vector_upsert, wait, workflow

MODULES = (api, embeddings, maintenance, monitoring, runs, workflows, models)
STEPS = (embedding, llm_query, vector_search, vector_upsert, wait, workflow)
BASES = (Body, Payload, Written, Parameters)
OWN = (workflows.EmbeddedPart, workflows.StepEmbedded)
"""What workers answer to the engine; no client sends it."""


def sent(modules: tuple[ModuleType, ...]) -> Iterator[type[BaseModel]]:
    """Yield the models of these modules that clients fill in."""
    for module in modules:
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, BASES) and found not in BASES + OWN:
                yield found


FIELDS = sorted(
    {
        (model, name)
        for model in sent(MODULES + STEPS)
        for name, field in model.model_fields.items()
        if not field.is_required()
    },
    key=lambda pair: (pair[0].__name__, pair[1]),
)


def problems(model: type[BaseModel], given: dict[str, Any]) -> set[Any]:
    try:
        model.model_validate(given)
    except ValidationError as error:
        return {str(detail["loc"][:1]) + detail["type"] for detail in error.errors()}
    return set()


def test_there_are_fields_of_every_kind() -> None:
    assert {base for base in BASES for model, _ in FIELDS if issubclass(model, base)} == set(BASES)
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_null_is_as_good_as_nothing(model: type[BaseModel], name: str) -> None:
    assert problems(model, {name: None}) == problems(model, {})


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (api.EmbeddingsRequest, {"input": "a"}),
        (embeddings.BatchRequest, {"text": "a"}),
        (runs.EmbeddingBatchRequest, {"requests": []}),
        (runs.SearchRequest, {}),
        (workflows.VectorSimilaritySearch, {"collection": "c"}),
        (models.HeadModel, {}),
        (models.StepModel, {"step_id": "s", "type": "wait"}),
        (vector_search.VectorSearchParameters, {"collection": "c"}),
        (llm_query.LlmQueryParameters, {"query": "q"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_with_null_in_every_other_field_the_defaults_hold(model: type[BaseModel], given: dict[str, Any]) -> None:
    nulls = dict.fromkeys(model.model_fields.keys() - given.keys())
    assert model.model_validate(nulls | given) == model.model_validate(given)
