"""Faults of Qdrant's double.

Modes, besides those of `tests.doubles.base.behaviour`:
    error500            an internal error, in Qdrant's envelope
    html502             a proxy's page
    rate429             a strict-mode rate limit, with Retry-After
    unauthorized401     as with a wrong API key
    missing_collection  every collection is unknown
    wrong_dimension     every vector has the wrong length
    not_ready           `/readyz` says no; everything else works
    garbage_json        half of the answer's JSON with status 200
"""

from dataclasses import dataclass
from typing import ClassVar

from tests.doubles.base.behaviour import COMMON_MODES, Behaviour
from tests.doubles.base.refusals import COMMON, Refusal
from tests.doubles.qdrant.refusals import UNAUTHORIZED, wrong_dimension

REFUSALS = {
    "error500": Refusal(status=500, message="Service internal error: task 42 panicked"),
    "rate429": Refusal(
        status=429, message="Rate limiting exceeded: Read rate limit exceeded, retry later", retry_after_s=1.0
    ),
    "unauthorized401": UNAUTHORIZED,
    "html502": COMMON["html502"],
    "wrong_dimension": wrong_dimension(768, 384),
}


@dataclass(frozen=True, kw_only=True)
class QdrantBehaviour(Behaviour):
    """One behaviour; it touches the requests whose path ends in `only_route` (such as `points/query`)."""

    MODES: ClassVar = COMMON_MODES | REFUSALS.keys() | {"missing_collection", "not_ready", "garbage_json"}
    REFUSALS: ClassVar = REFUSALS

    # the end of the paths touched; empty is all
    only_route: str = ""

    def touches(self, path: str) -> bool:
        """Return True if a request to a path is touched."""
        return path.endswith(self.only_route)
