"""Environment variables of the children: the user's, and embedded defaults."""

from collections.abc import Mapping

from citadel_client.dev import cluster
from citadel_client.dev.home import Home
from citadel_client.dev.ports import HOST

BACKENDS = "CITADEL_EMBEDDINGS__BACKENDS"
CONCURRENCY = "CITADEL_WORKER__CONCURRENCY"
QDRANT_PATH = "CITADEL_QDRANT__PATH"
QDRANT_URL = "CITADEL_QDRANT__URL"
HOME_VARIABLE = "CITADEL_DEV_HOME"
"""Set for all children of a home, so that a later run recognises processes that an earlier one left."""


def store_urls(broker_url: str, cache_url: str, postgres_dsn: str) -> dict[str, str]:
    """Return the variables with the URLs of the stores."""
    return {
        "CITADEL_BROKER_URL": broker_url,
        "CITADEL_RESULT_URL": broker_url,
        "CITADEL_CACHE_URL": cache_url,
        "CITADEL_POSTGRES_DSN": postgres_dsn,
    }


def for_orchestration(variables: Mapping[str, str], home: Home) -> dict[str, str]:
    """Return the variables of the orchestration worker, the only process that opens the embedded Qdrant."""
    found = dict(variables)
    if not _is_set(CONCURRENCY, variables):
        found[CONCURRENCY] = "16"  # its threads mostly wait for transactions; fewer of them save memory
    if not _is_set(QDRANT_URL, variables):
        found = {name: value for name, value in found.items() if not name.upper().startswith(QDRANT_PATH)}
        found[QDRANT_PATH] = str(home.vectors)
    return found


def for_exporter(variables: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the variables of the exporter."""
    return {**variables, "CITADEL_EXPORTER__HOST": HOST, "CITADEL_EXPORTER__PORT": str(port)}


def for_postgres(home: Home) -> dict[str, str]:
    """Return the variables of PostgreSQL: none of the user's, and no secret."""
    return {**cluster.environment(), HOME_VARIABLE: str(home.path)}


def _is_set(name: str, variables: Mapping[str, str]) -> bool:
    """Return whether a setting is given: whole, by its fields, or as a file."""
    return any(found.upper().startswith(name) for found in variables)


def for_children(user: Mapping[str, str], home: Home, port: int, urls: Mapping[str, str]) -> dict[str, str]:
    """Return all variables of the children.

    The user's settings override the defaults, but not the stores and the port: the user's shell may have sourced
    those of an earlier run.
    """
    found = {
        "CITADEL_DEFAULT_MODEL": "all-minilm",
        "CITADEL_EMBEDDINGS__MODEL_CACHE": str(home.models),
        "CITADEL_API__GRACEFUL_TIMEOUT": "10",
        "CITADEL_API__KEYLESS": "loopback",
        "CITADEL_WORKER__STOP_GRACE": "10",
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait make the model several times slower on a machine that does other work.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    if not _is_set(BACKENDS, user):
        found[BACKENDS] = '{"local": {"kind": "local"}}'
    return {
        **found,
        **user,
        **urls,
        "CITADEL_API__HOST": HOST,
        "CITADEL_API__PORT": str(port),
        HOME_VARIABLE: str(home.path),
    }
