"""The schema that editors use: valid, in step with the checks, and current."""

import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from citadel_orchestration.definition.json_schema import json_schema
from tests.unit.orchestration.definition.step_types import RAG, TYPES, llm, wait

COMMITTED = Path(__file__).parents[4] / "docs" / "workflow.schema.json"


@pytest.fixture(scope="module")
def validator():
    schema = json_schema(TYPES)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    "raw",
    [
        RAG,
        {"workflow_id": "w", "context": {}, "steps": [wait("a")]},
        {"steps": [{"step_id": "s", "type": "vector_search", "parameters": {"collection": "c", "limit": "${{ 5 }}"}}]},
        {"steps": [llm("a", for_each={"items": "${{ context.l }}", "max_parallel": 3}, timeout=3, retry={"delay": 1})]},
        {
            "steps": [
                {
                    "step_id": "u",
                    "type": "vector_upsert",
                    "parameters": {"collection": "c", "points": [{"id": 1, "embedding": "${{ context.v }}"}]},
                }
            ]
        },
        {"steps": [{"step_id": "s", "type": "workflow", "parameters": {"definition": {"steps": [wait("a")]}}}]},
    ],
)
def test_good_definitions_pass(validator, raw):
    validator.validate(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"steps": []},
        {"steps": [wait("a b")]},
        {"steps": [wait("a", unknown=1)]},
        {"steps": [{**wait("a"), "type": "sing"}]},
        {"steps": [llm("a", 5)]},
        {"steps": [{"step_id": "a", "type": "llm_query"}]},
        {"steps": [{"step_id": "a", "type": "llm_query", "parameters": {"query": "x", "more": 1}}]},
        {"steps": [wait("a", timeout="soon")]},
        {"steps": [{"step_id": "s", "type": "workflow", "parameters": {"definition": {"steps": []}}}]},
    ],
)
def test_bad_definitions_do_not_pass(validator, raw):
    assert not validator.is_valid(raw)


def test_the_committed_schema_is_current():
    command = [sys.executable, "-m", "citadel_orchestration.definition.json_schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed == COMMITTED.read_text(encoding="utf-8"), f"run: {' '.join(command[1:])} > docs/{COMMITTED.name}"
