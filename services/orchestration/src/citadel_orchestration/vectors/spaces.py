"""The vectors that a collection holds: their names, lengths and metrics, and which of them Citadel can use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from citadel_common.errors import VectorStoreRefused

if TYPE_CHECKING:
    from qdrant_client.models import CollectionInfo, VectorParams


@dataclass(frozen=True, kw_only=True)
class VectorSpace:
    """The vectors of one name in a collection.

    Attributes:
        size: Their length; 0 for sparse ones.
        metric: A `Metric`, or one that a newer server knows; empty for sparse ones.
        kind: `dense`: one per point; `sparse`; `multi`: several per point.
    """

    size: int = 0
    metric: str = ""
    kind: Literal["dense", "sparse", "multi"] = "dense"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What a collection holds and takes.

    Attributes:
        spaces: Its vectors by name; unnamed ones have the name "".
        most_points: Points that one write may have; None without a limit.
    """

    spaces: Mapping[str, VectorSpace]
    most_points: int | None = None

    @property
    def lengths(self) -> dict[str, int]:
        """The lengths of the vectors that Citadel can use, by name."""
        return {name: space.size for name, space in self.spaces.items() if space.kind == "dense"}


def wrong_dimension(collection: str, expected: int, got: int) -> VectorStoreRefused:
    """Return the error for a vector of the wrong length."""
    return VectorStoreRefused.at(
        "collection",
        f"{collection!r} holds vectors of {expected} dimensions, not {got}: "
        "use the model it was filled with, or another collection",
    )


def read_collection(info: "CollectionInfo") -> Collection:
    """Return what the store says of a collection."""
    params = info.config.params
    vectors = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
    spaces = {name: _space(each) for name, each in vectors.items() if each is not None}
    spaces |= dict.fromkeys(params.sparse_vectors or {}, VectorSpace(kind="sparse"))
    strict = info.config.strict_mode_config
    is_limited = strict is not None and bool(strict.enabled)
    return Collection(spaces=spaces, most_points=strict.upsert_max_batchsize if strict and is_limited else None)


def _space(params: "VectorParams") -> VectorSpace:
    kind: Literal["dense", "multi"] = "dense" if params.multivector_config is None else "multi"
    return VectorSpace(size=params.size, metric=params.distance.value.lower(), kind=kind)


def space_for(collection: str, found: Collection, vector_name: str | None, size: int) -> VectorSpace:
    """Return the space of vectors of a name and a length.

    Raises:
        VectorStoreRefused: The collection has none of that name, or it is of another length or kind.
    """
    space = found.spaces.get(vector_name or "")
    if space is None:
        raise VectorStoreRefused.at("vector_name", _no_such(collection, found, vector_name))
    if space.kind == "sparse":
        raise _unusable(found, f"{vector_name!r} of {collection!r} are sparse vectors")
    if space.kind == "multi":
        which = f"{vector_name!r} of {collection!r}" if vector_name else repr(collection)
        raise _unusable(found, f"{which} has several vectors per point (a multivector)")
    if space.size != size:
        raise wrong_dimension(collection, space.size, size)
    return space


def _no_such(collection: str, found: Collection, vector_name: str | None) -> str:
    wanted = f"vector named {vector_name!r}" if vector_name else "unnamed vector"
    return f"{collection!r} has no {wanted}; it has {_listed(found)}"


def _unusable(found: Collection, what: str) -> VectorStoreRefused:
    problem = f"{what}, which Citadel neither makes nor searches; usable here: {_listed(found)}"
    return VectorStoreRefused.at("vector_name", problem)


def _listed(found: Collection) -> str:
    names = [repr(name) if name else "only the unnamed one" for name in found.lengths]
    return ", ".join(names) or "none"
