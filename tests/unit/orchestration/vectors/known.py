"""What is known when definitions are checked, and calls of steps, for tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from citadel_common.deadline import Deadline
from citadel_orchestration.steps.base import StepCall, Vectors


@dataclass(frozen=True, kw_only=True)
class KnownFacts:
    """Models and collections with their dimensions; the model None is the default one."""

    models: Mapping[str | None, int] = field(default_factory=dict)
    collections: Mapping[str, int] = field(default_factory=dict)

    def endpoint_problem(self, _name):
        return None

    def model_dimensions(self, model):
        return self.models.get(model)

    def collection_dimensions(self, collection):
        return self.collections.get(collection)


NOTHING = KnownFacts()


def call(*vectors):
    """A call with the vectors of the texts that the step wanted; without any, it wanted none."""
    found = None
    if vectors:
        rows = [list(vector) for vector in vectors]
        found = Vectors(vectors=rows, model="minilm", dimensions=len(rows[0]), cache_hits=1, truncated=[0])
    return StepCall(run_id="r", step_id="s", item=None, attempt=1, deadline=Deadline.after(30), vectors=found)
