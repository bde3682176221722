"""A definition while it is checked: as much of it as can be made out."""

from dataclasses import dataclass
from typing import Any

from citadel_orchestration.definition.checks.problems import Path
from citadel_orchestration.definition.models import StepModel
from citadel_orchestration.step_types import StepType


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One step while it is checked.

    Attributes:
        path: Where it stands.
        index: Its place.
        raw: As written; empty where it is no object.
        model: Its fields; None where some are wrong.
        step_id: Its id; None where it has no usable one.
        type: Its type; None where there is no such type.
        depends_on: What it says, or the step before; None where that cannot be told.
    """

    path: Path
    index: int
    raw: dict[str, Any]
    model: StepModel | None
    step_id: str | None
    type: StepType[Any] | None
    depends_on: tuple[str, ...] | None

    @property
    def parameters(self) -> dict[str, Any]:
        """As written; empty where they are no object."""
        written = self.raw.get("parameters")
        return written if isinstance(written, dict) else {}

    @property
    def nested(self) -> dict[str, Any] | None:
        """The definition of another run within the parameters, as written."""
        if self.type is None or self.type.nested is None:
            return None
        written = self.parameters.get(self.type.nested.definition)
        return written if isinstance(written, dict) else None

    @property
    def own_parameters(self) -> dict[str, Any]:
        """The parameters without a nested definition, whose expressions are its own run's."""
        if self.nested is None:
            return self.parameters
        return {name: value for name, value in self.parameters.items() if value is not self.nested}

    @property
    def for_each(self) -> dict[str, Any] | None:
        """As written, where it is an object."""
        written = self.raw.get("for_each")
        return written if isinstance(written, dict) else None


@dataclass(frozen=True, kw_only=True)
class DraftDefinition:
    """A definition while it is checked.

    Attributes:
        path: Where it stands; the root's is empty.
        raw: As written.
        steps: In the order written.
        by_id: The first step of each id.
        given: Keys that a run within a run is given beside its own context; None where they cannot be told.
    """

    path: Path
    raw: dict[str, Any]
    steps: list[Draft]
    by_id: dict[str, Draft]
    given: frozenset[str] | None

    @property
    def context(self) -> dict[str, Any]:
        """As written; empty where it is no object."""
        written = self.raw.get("context")
        return written if isinstance(written, dict) else {}

    def may_have(self, key: str) -> bool:
        """Whether the context may have the key when the run starts."""
        return self.given is None or key in self.given or key in self.context
