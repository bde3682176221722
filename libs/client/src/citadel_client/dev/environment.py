"""The variables of the children: the user's own, and what makes the embedded defaults."""

from collections.abc import Mapping

from citadel_client.dev import cluster
from citadel_client.dev.home import Home
from citadel_client.dev.ports import HOST

BACKENDS = "CITADEL_EMBEDDINGS__BACKENDS"
CONCURRENCY = "CITADEL_WORKER__CONCURRENCY"
QDRANT_PATH = "CITADEL_QDRANT__PATH"
QDRANT_URL = "CITADEL_QDRANT__URL"
HOME_MARK = "CITADEL_DEV_HOME"
"""Marks the children of a home, so that a later run knows what an earlier one left behind."""


def stores(broker_url: str, cache_url: str, postgres_dsn: str) -> dict[str, str]:
    """Where the stores are."""
    return {
        "CITADEL_BROKER_URL": broker_url,
        "CITADEL_RESULT_URL": broker_url,
        "CITADEL_CACHE_URL": cache_url,
        "CITADEL_POSTGRES_DSN": postgres_dsn,
    }


def of_orchestration(variables: Mapping[str, str], home: Home) -> dict[str, str]:
    """The variables of the orchestration worker, which alone opens the embedded Qdrant."""
    found = dict(variables)
    if not _given(CONCURRENCY, variables):
        found[CONCURRENCY] = "16"  # its threads wait for transactions: a small machine's memory is better kept
    if not _given(QDRANT_URL, variables):
        found = {name: value for name, value in found.items() if not name.upper().startswith(QDRANT_PATH)}
        found[QDRANT_PATH] = str(home.vectors)
    return found


def of_exporter(variables: Mapping[str, str], port: int) -> dict[str, str]:
    """The variables of the exporter, whose port is this stack's."""
    return {**variables, "CITADEL_EXPORTER__HOST": HOST, "CITADEL_EXPORTER__PORT": str(port)}


def of_postgres(home: Home) -> dict[str, str]:
    """The variables of PostgreSQL: none of the user's, and no secret."""
    return {**cluster.environment(), HOME_MARK: str(home.path)}


def _given(name: str, variables: Mapping[str, str]) -> bool:
    """Whether it is set, as a whole, by its parts, or as a file."""
    return any(found.upper().startswith(name) for found in variables)


def of_children(user: Mapping[str, str], home: Home, port: int, store_urls: Mapping[str, str]) -> dict[str, str]:
    """All variables of the children.

    Stores and port are always this stack's, since the user's shell may have sourced an earlier run's; all
    other settings of the user's count.
    """
    found = {
        "CITADEL_DEFAULT_MODEL": "all-minilm",
        "CITADEL_EMBEDDINGS__MODEL_CACHE": str(home.models),
        "CITADEL_API__GRACEFUL_TIMEOUT": "10",
        "CITADEL_WORKER__STOP_GRACE": "10",
        "PYTHONUNBUFFERED": "1",
        # a machine that does other work too: threads that spin while they wait make the model several times slower
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    if not _given(BACKENDS, user):
        found[BACKENDS] = '{"local": {"kind": "local"}}'
    return {
        **found,
        **user,
        **store_urls,
        "CITADEL_API__HOST": HOST,
        "CITADEL_API__PORT": str(port),
        HOME_MARK: str(home.path),
    }
