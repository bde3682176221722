"""Compiles the modules that a service loads at its start into a separate tree: bytecode.py PACKAGE TARGET.

The script imports the modules that the service's commands start with, and writes the bytecode of everything that this
loads from /app and /opt under TARGET, at its path below the root. The bytecode is not checked against its source when
it is loaded, so file times do not matter. Then the script imports every other module of the package: one that cannot be
imported fails the build.
"""

import importlib
import importlib.util
import pkgutil
import py_compile
import sys
from pathlib import Path

ROOTS = ("/app/", "/opt/")
STARTS = ("worker", "api.http.server", "api.app", "api.http.worker", "migrate", "exporter.process", "beat.process")
"""Modules that commands start with, in the packages that have them."""
LOADED_BY_NAME = (
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
"""Modules that Celery and the telemetry load by name."""
OPTIONAL = "citadel_embeddings.backends.local"
"""Needs the local model, which the images do not contain."""


def modules(package: str) -> set[str]:
    root = importlib.import_module(package)
    names = {module.name for module in pkgutil.walk_packages(root.__path__, f"{package}.")}
    return {name for name in names if not name.startswith(OPTIONAL) and not name.endswith("__main__")}


def sources() -> set[Path]:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {Path(file) for file in files if file and file.startswith(ROOTS) and file.endswith(".py")}


def compile_into(target: Path, source: Path) -> None:
    cached = target / Path(importlib.util.cache_from_source(str(source))).relative_to("/")
    py_compile.compile(
        str(source),
        cfile=str(cached),
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def main() -> None:
    package, target = sys.argv[1:]
    every = modules(package)
    starts = {f"{package}.{name}" for name in STARTS} & every
    for name in (*LOADED_BY_NAME, *sorted(starts)):
        importlib.import_module(name)
    for source in sorted(sources()):
        compile_into(Path(target), source)
    for name in sorted(every):
        importlib.import_module(name)


if __name__ == "__main__":
    main()
