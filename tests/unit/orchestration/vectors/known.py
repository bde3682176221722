"""What is known when definitions are checked, and answers of embeddings workers, for tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from citadel_common.embeddings.vectors import to_base64
from citadel_contracts.workflows import EmbeddedPart


@dataclass(frozen=True, kw_only=True)
class KnownFacts:
    """Models with their dimensions (None is the default one), collections with those of their vectors by name."""

    models: Mapping[str | None, int] = field(default_factory=dict)
    collections: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def endpoint_problem(self, _name):
        return None

    def model_dimensions(self, model):
        return self.models.get(model)

    def collection_vectors(self, collection):
        return self.collections.get(collection)


NOTHING = KnownFacts()


def answer(*vectors, **fields):
    """Return the answer to a request for these vectors."""
    rows = [to_base64(np.asarray(vector, dtype="<f4")) for vector in vectors]
    return EmbeddedPart(vectors=rows, model="minilm", dimensions=len(vectors[0]), cache_hits=1, truncated=[0], **fields)
