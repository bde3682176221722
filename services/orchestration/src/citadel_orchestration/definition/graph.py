"""The graph of a definition: its order, and a Mermaid flowchart."""

import re
from collections.abc import Mapping

from citadel_orchestration.definition.definition import Definition, Step

SHOWN = 60
_STATUS = re.compile(r"[a-z][a-z_]{0,30}", re.ASCII)
_STYLES = {
    "succeeded": "fill:#d3f9d8,stroke:#2b8a3e,color:#000",
    "running": "fill:#d0ebff,stroke:#1864ab,color:#000",
    "failed": "fill:#ffe3e3,stroke:#c92a2a,color:#000",
    "skipped": "fill:#f1f3f5,stroke:#868e96,color:#000,stroke-dasharray:4 3",
    "cancelled": "fill:#f1f3f5,stroke:#495057,color:#000",
}


def order(definition: Definition) -> list[list[str]]:
    """Return step ids by level, each in the order written; a step is one level behind the last of its dependencies."""
    waiting = {step_id: len(set(step.depends_on)) for step_id, step in definition.steps.items()}
    level = [step_id for step_id, count in waiting.items() if count == 0]
    levels: list[list[str]] = []
    while level:
        levels.append(level)
        free: list[str] = []
        for step_id in level:
            for later in definition.steps[step_id].dependents:
                waiting[later] -= 1
                if waiting[later] == 0:
                    free.append(later)
        level = sorted(free, key=lambda step_id: definition.steps[step_id].index)
    return levels


def mermaid(definition: Definition, statuses: Mapping[str, str] | None = None) -> str:
    """Return a Mermaid flowchart; `statuses` (by step id) become the nodes' classes."""
    lines = ["flowchart TD"]
    lines += [f"    {_node(step)}" for step in definition.steps.values()]
    for step in definition.steps.values():
        arrow = "-.->" if step.when else "-->"
        lines += [f"    s{definition.steps[name].index} {arrow} s{step.index}" for name in step.depends_on]
    return "\n".join([*lines, *_classes(definition, statuses or {})]) + "\n"


def _node(step: Step) -> str:
    label = f"{_escaped(step.step_id)}<br/>{_escaped(step.type.name)}"
    if step.when:
        label += f"<br/>when {_escaped(step.when.text)}"
    opening, closing = ("[[", "]]") if step.for_each else ("[", "]")
    return f's{step.index}{opening}"{label}"{closing}'


def _classes(definition: Definition, statuses: Mapping[str, str]) -> list[str]:
    by_status: dict[str, list[str]] = {}
    for step_id, status in statuses.items():
        if step_id in definition.steps and _STATUS.fullmatch(status):
            by_status.setdefault(status, []).append(f"s{definition.steps[step_id].index}")
    lines = []
    for status, nodes in by_status.items():
        if status in _STYLES:
            lines.append(f"    classDef {status} {_STYLES[status]}")
        lines.append(f"    class {','.join(nodes)} {status}")
    return lines


def _escaped(text: str) -> str:
    """Return a label in which all characters that may mean something to Mermaid are written by their numbers."""
    text = " ".join(text.split())
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return "".join(c if c.isalnum() or c in " _-.…" else f"#{ord(c)};" for c in text)
