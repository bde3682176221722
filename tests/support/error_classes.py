"""Every error class of Citadel, and instances of them."""

import importlib
import pkgutil
from collections.abc import Iterator

from citadel_common.errors import CitadelError

PACKAGES = (
    "citadel_common",
    "citadel_embeddings",
    "citadel_orchestration",
    "citadel_monitoring",
    "citadel_maintenance",
)
RETRY_AFTER = 7.0


def all_classes() -> dict[str, type[CitadelError]]:
    """Import all modules of all packages; return the error classes that they define, by their codes."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return {kind.code: kind for kind in (CitadelError, *_below(CitadelError)) if kind.__module__.startswith("citadel_")}


def _below(kind: type[CitadelError]) -> Iterator[type[CitadelError]]:
    for found in kind.__subclasses__():
        yield found
        yield from _below(found)


def raised(kind: type[CitadelError], index: int) -> CitadelError:
    """Return an error of a class about one text, with everything that an error can carry."""
    error = kind.at("text", f"as told: {kind.code}", index)
    error.retry_after = RETRY_AFTER
    return error
