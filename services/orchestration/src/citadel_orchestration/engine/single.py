"""Runs of a single step."""

from collections.abc import Mapping
from typing import Any


def single_step(type_: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of a run of one step; its parameters are data, never expressions."""
    context = {"parameters": dict(parameters)}
    expressions = {name: f"${{{{ context.parameters.{name} }}}}" for name in parameters}
    return {
        "workflow_id": type_,
        "context": context,
        "steps": [{"step_id": "step", "type": type_, "parameters": expressions}],
        "output": "${{ steps.step.output }}",
    }
