"""What a step type is.

A type checks parameters when a workflow is submitted, says which texts it needs vectors of, and executes. The
embeddings workers compute the vectors beforehand, so that no step waits in a thread for another worker.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from citadel_common.deadline import Deadline
from citadel_contracts.embeddings import InputType

Output = dict[str, Any]


class Parameters(BaseModel):
    """Base of step parameters, after their expressions are evaluated: strict, closed, immutable."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Texts whose vectors a step needs before it executes; see the contract of `generate_embedding`."""

    texts: list[str]
    model: str | None = None
    dimensions: int | None = None
    input_type: InputType | None = None
    options: Mapping[str, Any] | None = None
    cache_enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Their vectors; vectors[i] belongs to texts[i].

    Attributes:
        vectors: One list of floats per text.
        model: Name of the model.
        dimensions: Length of each vector.
        cache_hits: Texts answered from the cache.
        truncated: Indices of texts that were cut.
    """

    vectors: list[list[float]]
    model: str
    dimensions: int
    cache_hits: int = 0
    truncated: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StepCall:
    """One execution of a step.

    Attributes:
        run_id: Its run.
        step_id: Its step.
        item: Index within a `for_each`; None outside.
        attempt: Fencing number of the execution.
        deadline: When it must have ended.
        vectors: Of the texts that `wants` named; None where it named none.
    """

    run_id: str
    step_id: str
    item: int | None
    attempt: int
    deadline: Deadline
    vectors: Vectors | None = None


class Known(Protocol):
    """What is known when a definition is checked; None where something is not known, which is no error."""

    def endpoint_problem(self, name: str) -> str | None:
        """Why an LLM endpoint (a name, or a configured URL) cannot be used."""

    def model_dimensions(self, model: str | None) -> int | None:
        """Length of an embedding model's vectors; None names the default model."""

    def collection_dimensions(self, collection: str) -> int | None:
        """Length of the vectors in a collection."""


class StepType(ABC, Generic[P]):
    """One type; an instance serves all steps of it and is safe to share.

    Attributes:
        name: As in definitions.
        parameters: Model of the parameters.
        outputs: Keys of the output, which expressions may refer to.
    """

    name: ClassVar[str]
    parameters: type[P]
    outputs: ClassVar[frozenset[str]]

    def check(self, raw: Mapping[str, Any], known: Known) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """What is wrong beyond the model, as (JSON pointer below `parameters`, message).

        `raw` holds parameters as written: any value may still be an expression (a string with `${{`).
        """
        return iter(())

    def wants(self, parameters: P) -> Wanted | None:  # noqa: ARG002
        """The texts that need vectors first; None for none."""
        return None

    @abstractmethod
    async def execute(self, parameters: P, call: StepCall) -> Output:
        """The output; must end by the deadline, and at once when cancelled.

        Raises:
            CitadelError: It failed; `transient` says whether another attempt can succeed.
        """
