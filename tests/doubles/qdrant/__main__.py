"""Qdrant's double as a server: `python -m tests.doubles.qdrant --port 0`."""

from tests.doubles.base.server import main
from tests.doubles.qdrant.app import QdrantDouble
from tests.doubles.qdrant.settings import QdrantSettings

# actix, which Qdrant stands on, closes idle connections after so long
KEEP_ALIVE_S = 5

if __name__ == "__main__":
    main(QdrantDouble, QdrantSettings, __doc__, keep_alive_s=KEEP_ALIVE_S)
