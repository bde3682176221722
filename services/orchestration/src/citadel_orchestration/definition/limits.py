"""Limits of definitions."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DefinitionLimits:
    """Limits that are checked when a definition is submitted.

    Attributes:
        max_steps: Steps of one definition.
        max_definition_bytes: Bytes of a definition as compact JSON.
        max_context_bytes: Bytes of its context as compact JSON.
        max_depth: Levels of lists and objects.
        max_items: Literal items of one `for_each`.
        max_parallel: Items of one step at once.
        max_attempts: Attempts of one step.
        max_timeout: Seconds; longest timeout of a step and longest delay between attempts.
        max_deadline: Seconds; longest deadline of a run.
        max_concurrency: Largest limit per concurrency key.
        max_labels: Labels of one definition.
        max_nesting: Sub-workflows within one another.
        max_problems: Problems that one answer lists.
    """

    max_steps: int = 1000
    max_definition_bytes: int = 2**20
    max_context_bytes: int = 2**20
    max_depth: int = 64
    max_items: int = 10_000
    max_parallel: int = 256
    max_attempts: int = 100
    max_timeout: float = 86_400.0
    max_deadline: float = 30 * 86_400.0
    max_concurrency: int = 10_000
    max_labels: int = 64
    max_nesting: int = 5
    max_problems: int = 200
