"""JSON Schema (draft 2020-12) of definitions, for editors.

`python -m citadel_orchestration.definition.json_schema` prints it.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel

from citadel_orchestration.definition.models import DefinitionModel
from citadel_orchestration.step_types import StepType, StepTypes

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EXPRESSION = {"$ref": "#/$defs/Expression"}

Schema = dict[str, Any]


def json_schema(types: StepTypes) -> Schema:
    """Return the schema: it checks each type's parameters, of which any value may be an expression."""
    schema = DefinitionModel.model_json_schema(ref_template="#/$defs/{model}")
    shared = schema.pop("$defs")
    shared["Expression"] = {
        "type": "string",
        "pattern": r"\$\{\{",
        "description": "Text with CEL expressions in ${{ }}; exactly one expression keeps the type of its value",
    }
    step = shared["StepModel"]
    step["properties"]["type"] = {"enum": sorted(types), "description": "Its step type"}
    step["allOf"] = [_of_type(types[name], shared) for name in sorted(types)]
    return {"$schema": DIALECT, **_tidy(schema), "$defs": {name: _tidy(shared[name]) for name in sorted(shared)}}


def text(types: StepTypes) -> str:
    """Return the schema as `docs/workflow.schema.json` holds it."""
    return json.dumps(json_schema(types), indent=2, ensure_ascii=False) + "\n"


def _of_type(type_: StepType[Any], shared: dict[str, Any]) -> Schema:
    """Return the rule for the parameters of a type; add the models that they use to the shared definitions."""
    prefix, model = f"{type_.name}.", type_.parameters
    parameters = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    for inner, found in parameters.pop("$defs", {}).items():
        shared[prefix + inner] = _open(found)
    _add_aliases(parameters, model)
    parameters = _open(parameters)
    if type_.nested is not None:
        parameters["properties"][type_.nested.definition] = {"anyOf": [{"$ref": "#"}, EXPRESSION]}
    then: Schema = {"properties": {"parameters": parameters}}
    if parameters.get("required"):
        then["required"] = ["parameters"]
    return {"if": {"properties": {"type": {"const": type_.name}}, "required": ["type"]}, "then": then}


def _add_aliases(schema: Schema, model: type[BaseModel]) -> None:
    """Add the other names of fields: pydantic's schema has only the first."""
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names = [str(name) for name in field.validation_alias.choices]
            known = schema["properties"].get(names[0])
            schema["properties"].update({name: known for name in names if known is not None})


def _open(schema: Any) -> Any:
    """Return the schema with an expression allowed in place of any value below the top."""
    if not isinstance(schema, dict):
        return schema
    opened = dict(schema)
    if isinstance(schema.get("properties"), dict):
        opened["properties"] = {name: _or_expression(found) for name, found in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            opened[name] = _or_expression(schema[name])
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list):
            opened[name] = [_open(member) for member in schema[name]]
    return opened


def _or_expression(schema: Mapping[str, Any]) -> Schema:
    opened = _open(schema)
    notes = {name: opened.pop(name) for name in ("description", "default") if name in opened}
    if not opened:
        return notes
    members = opened["anyOf"] if set(opened) <= {"anyOf", "title"} else [opened]
    return {**notes, "anyOf": [*members, EXPRESSION]}


def _tidy(schema: Any) -> Any:
    """Return the schema without the titles that pydantic makes up."""
    if isinstance(schema, list):
        return [_tidy(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _tidy(found) for name, found in schema.items() if not (name == "title" and isinstance(found, str))}


def _public_types() -> StepTypes:
    """Return the shipped types, of which the schema reads the models only: no endpoint and no store is called.

    Definitions know no step types; only this program does, so it finds them by name.
    """
    registry = importlib.import_module("citadel_orchestration.steps.registry")
    types: StepTypes = registry.shipped_types(None, None)
    return types.public


if __name__ == "__main__":
    sys.stdout.write(text(_public_types()))
