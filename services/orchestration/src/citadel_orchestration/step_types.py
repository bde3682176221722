"""The interface of step types, which definitions, plans and the engine use.

A step type returns an *effect* that says what a step does, and the engine carries effects out. A new type is one class.
Ship it in `steps.registry`, or hand it to `worker.main` and the API's `create_app`; nothing else names types.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from pydantic import ConfigDict

from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import Vector, from_base64
from citadel_common.errors import CitadelError, DeadlineExceeded, StepTimedOut, from_data
from citadel_contracts import Lane
from citadel_contracts.base import NullIsAbsent
from citadel_contracts.errors import ErrorData
from citadel_contracts.workflows import EmbeddedPart, EmbedPart

Output = dict[str, Any]


class Parameters(NullIsAbsent):
    """Base of step parameters, after their expressions are evaluated: strict, closed, immutable."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


P = TypeVar("P", bound=Parameters)


class Catalog(Protocol):
    """Models, collections and endpoints that checks may ask for; None means not known, which is not an error."""

    def endpoint_problem(self, name: str) -> str | None:
        """Return why an LLM endpoint (a name, or a configured URL) cannot be used; None if it can."""

    def model_dimensions(self, model: str | None) -> int | None:
        """Return the length of an embedding model's vectors; None as a name means the default model."""

    def collection_vectors(self, collection: str) -> Mapping[str, int] | None:
        """Return the lengths of the vectors in a collection by name; unnamed ones have the name ""."""


@dataclass(kw_only=True)
class CallCount:
    """Calls of an LLM that a step has made, in all its attempts."""

    made: int = 0

    def add(self) -> None:
        """Count a call."""
        self.made += 1


@dataclass(frozen=True, kw_only=True)
class StepCall:
    """One execution of a step.

    Attributes:
        run_id: Its run.
        step_id: Its step.
        item: Index within a `for_each`; None outside.
        attempt: Fencing number of the execution.
        deadline: When it must have ended.
        calls: Calls of an LLM so far: those of earlier attempts, to which the step adds its own.
    """

    run_id: str
    step_id: str
    item: int | None
    attempt: int
    deadline: Deadline
    calls: CallCount = field(default_factory=CallCount)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The vectors of one request to the embeddings workers; vectors[i] belongs to texts[i].

    Attributes:
        vectors: One array of float32 per text.
        model: Name of the model.
        dimensions: Length of each vector.
        cache_hits: Texts answered from the cache.
        truncated: Indices of texts that were cut.
    """

    vectors: list[Vector]
    model: str
    dimensions: int
    cache_hits: int
    truncated: list[int]

    @classmethod
    def of(cls, answer: EmbeddedPart) -> Self:
        """Decode an answer.

        Raises:
            CitadelError: The request failed, or one of its texts has no vector.
        """
        error = error_of(answer)
        if error is not None:
            raise error
        return cls(
            vectors=[from_base64(vector) for vector in answer.vectors if vector is not None],
            model=answer.model,
            dimensions=answer.dimensions,
            cache_hits=answer.cache_hits,
            truncated=answer.truncated,
        )


def error_of(answer: EmbeddedPart) -> CitadelError | None:
    """Return why a request has no usable answer; one text without a vector is enough."""
    if answer.error is not None:
        return attempt_error(answer.error)
    if answer.errors:
        first = answer.errors[0]
        return attempt_error(first).about("text", first.index)
    return None


def attempt_error(data: ErrorData) -> CitadelError:
    """Return the error that an embeddings worker reports.

    The deadline that a worker exceeds is that of the attempt. Another attempt has its own: the error can pass.
    """
    if data.code == DeadlineExceeded.code:
        data = data.model_copy(update={"code": StepTimedOut.code, "retryable": StepTimedOut.retryable})
    return from_data(data)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something that only so many steps may use at once, in all workers together.

    Attributes:
        name: Its name, which users see as what a step waits for, such as `llm:main`.
        limit: Steps at once.
    """

    name: str
    limit: int


@dataclass(frozen=True, kw_only=True)
class Execute:
    """Effect: run a coroutine on the worker's event loop; its result is the step's output.

    Attributes:
        uses: Returns the resource that the coroutine uses: it begins once the step has a slot there, and its error
            with a `retry_after` lets nothing begin there for so long.
        run: Called once per attempt. The coroutine must end by the call's deadline, and at once when cancelled. It
            fails by a CitadelError, whose `retryable` says whether another attempt can succeed.
    """

    run: Callable[[StepCall], Coroutine[Any, Any, Output]]
    uses: Callable[[], Resource | None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Effect: wait in the database, for some seconds or for a signal, whose payload is the step's output.

    Attributes:
        seconds: When the wait ends by itself; None for never. A signal that has not come by then fails the step.
        signal: Name of the signal; None for a mere pause.
    """

    seconds: float | None
    signal: str | None = None


@dataclass(frozen=True, kw_only=True)
class StartRun:
    """Effect: start a run of another definition and wait in the database for its end.

    Attributes:
        definition: As a client would submit it.
        context: Goes over the definition's own context.
    """

    definition: Mapping[str, Any]
    context: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Effect: get vectors from the embeddings workers.

    Any worker may take the answer, so nothing of this object outlives the request. The step's type first looks at the
    answer by `answered`. If that makes no output, the worker calls `begin` again and goes on with `then`.

    Attributes:
        requests: What is asked for.
        then: Gives the effect that follows, from one `Embedded` per request.
        echo: JSON that comes back with the vectors, for `answered`.
        lane: Lane in which the texts are computed; None takes the run's.
    """

    requests: Sequence[EmbedPart]
    then: "Callable[[Sequence[Embedded]], Execute | Wait | StartRun] | None" = None
    echo: dict[str, Any] | None = None
    lane: Lane | None = None


StepEffect = Execute | Embed | Wait | StartRun


Finding = tuple[str, str]
"""JSON pointer below `parameters`, and what is wrong there."""


class EmbeddingModel(NamedTuple):
    """Model and dimensions of a vector, as written: either may be missing or an expression."""

    model: Any
    dimensions: Any


class WrittenVector(NamedTuple):
    """A vector that must have the length of those in a collection, as written in parameters.

    Attributes:
        path: Where it, or its text, stands below `parameters`.
        collection: Name of the collection, or an expression.
        name: Which of the collection's vectors, or an expression; None for the unnamed ones.
        vector: A list of numbers, or an expression; None where it is made from a text.
        model: With what a text is embedded.
    """

    path: tuple[str | int, ...]
    collection: Any
    name: Any
    vector: Any
    model: EmbeddingModel | None = None


class NestedDefinition(NamedTuple):
    """Names of the parameters that hold the definition of another run and the context that it is given."""

    definition: str
    context: str


class StepType(ABC, Generic[P]):
    """One type of step. An instance serves all steps of the type and is safe to share between threads.

    `check`, `texts`, `vectors` and `vector_at` look at parameters as written, in which any value may be an
    expression (a string with `${{`).

    Attributes:
        name: As in definitions.
        parameters: Model of the parameters.
        outputs: Keys of the output, which expressions may refer to; empty if they are not known.
        public: Whether clients may use it in definitions.
        calls: Under which name a plan counts its calls to another service; None if it makes none.
        nested: Which parameters hold another run's definition; its expressions are that run's own.
    """

    name: ClassVar[str]
    parameters: type[P]
    outputs: ClassVar[frozenset[str]]
    public: ClassVar[bool] = True
    calls: ClassVar[str | None] = None
    nested: ClassVar[NestedDefinition | None] = None

    def check(self, raw: Mapping[str, Any], catalog: Catalog) -> Iterator[Finding]:  # noqa: ARG002  (for subclasses)
        """Yield what is wrong with parameters beyond what their model says."""
        return iter(())

    def texts(self, raw: Mapping[str, Any]) -> int | None:  # noqa: ARG002  (for subclasses)
        """Return how many texts a step will have embedded; None if only its evaluation tells."""
        return 0

    def vectors(self, raw: Mapping[str, Any]) -> Iterator[WrittenVector]:  # noqa: ARG002  (for subclasses)
        """Yield the vectors that must fit a collection."""
        return iter(())

    def vector_at(self, raw: Mapping[str, Any], path: Sequence[str | int]) -> EmbeddingModel | None:  # noqa: ARG002
        """Return how the vector at a path of the output is made; None if there is no vector."""
        return None

    @abstractmethod
    def begin(self, parameters: P) -> StepEffect:
        """Return what a step with these parameters does.

        Called for plans too, and again when vectors have come: it must depend on the parameters alone.

        Raises:
            InvalidInput: Parameters that came from expressions cannot be used.
        """

    def answered(self, echo: Mapping[str, Any], answers: Sequence[EmbeddedPart]) -> Output | None:  # noqa: ARG002
        """Return the output of a step that needs nothing but vectors; None to go on with `Embed.then`.

        Args:
            echo: That of the `Embed`; empty if it has none.
            answers: One per request.

        Raises:
            CitadelError: The step fails; by default if any request or text has no vector.
        """
        for answer in answers:
            error = error_of(answer)
            if error is not None:
                raise error
        return None


class StepTypes(dict[str, StepType[Any]]):
    """Step types by name."""

    def __init__(self, types: Iterable[StepType[Any]]) -> None:
        super().__init__()
        for type_ in types:
            self.register(type_)

    def register(self, type_: StepType[Any]) -> None:
        """Add a type.

        Raises:
            ValueError: There is one of that name.
        """
        if self.setdefault(type_.name, type_) is not type_:
            raise ValueError(f"there are two step types {type_.name!r}; give one of them another name")

    @property
    def public(self) -> "StepTypes":
        """The types that clients may use in definitions."""
        return StepTypes(type_ for type_ in self.values() if type_.public)
