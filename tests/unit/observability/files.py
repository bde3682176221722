"""Files of the observability stack, and the queries in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
STACK = ROOT / "compose" / "observability"
DASHBOARDS = sorted((STACK / "grafana/dashboards").glob("*.json"))
RULES = sorted((STACK / "prometheus/rules").glob("*.yml"))
RULE_TESTS = sorted((STACK / "prometheus/tests").glob("*.yml"))


def load(path: str) -> Any:
    """Return the content of one of the stack's YAML files."""
    return yaml.safe_load((STACK / path).read_text())


def dashboard(path: Path) -> dict[str, Any]:
    """Return a dashboard."""
    return json.loads(path.read_text())


def panels(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dashboard's panels, without the headings."""
    return [panel for panel in page["panels"] if panel["type"] != "row"]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Yield place and text of each query in panels, variables and annotations."""
    for path in DASHBOARDS:
        page = dashboard(path)
        for panel in panels(page):
            yield from ((f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"])
        yield from ((f"{path.stem}: {mark['name']}", mark["expr"]) for mark in page["annotations"]["list"])


def variable_metrics() -> Iterator[tuple[str, str, str]]:
    """Yield place, metric and label of each variable."""
    for path in DASHBOARDS:
        for variable in dashboard(path)["templating"]["list"]:
            metric, label = variable["definition"].removeprefix("label_values(").removesuffix(")").split(", ")
            yield f"{path.stem}: {variable['name']}", metric, label


def rules(kind: str) -> list[dict[str, Any]]:
    """Return all rules of a kind, `alert` or `record`."""
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"] if kind in rule]


def rule_queries() -> Iterator[tuple[str, str]]:
    """Yield name and query of each rule."""
    for kind in ("alert", "record"):
        yield from ((rule[kind], rule["expr"]) for rule in rules(kind))
