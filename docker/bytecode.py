"""Compiles what a service loads at its start, beside a read-only tree: bytecode.py PACKAGE TARGET.

What gets loaded from /app and /opt by the modules that the service's commands begin with is written as bytecode under
TARGET, at its place below the root; it is taken as it is (unchecked), so that times of files play no part. Then every
other module of the package is imported too: one that cannot be ends the build.
"""

import importlib
import importlib.util
import pkgutil
import py_compile
import sys
from pathlib import Path

ROOTS = ("/app/", "/opt/")
STARTS = ("worker", "api.http.server", "api.app", "api.http.worker", "migrate", "exporter.process", "beat.process")
"""Modules that commands begin with, in those packages that have them."""
LOADED_BY_NAME = (
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
"""What Celery and the telemetry are told by name to load."""
OPTIONAL = "citadel_embeddings.backends.local"
"""Needs the local model, which the images do without."""


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
