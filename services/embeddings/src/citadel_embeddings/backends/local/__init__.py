"""The built-in model: all-MiniLM-L6-v2 on the CPU, on CTranslate2.

Importing this package imports only NumPy; the optional packages are imported by `LocalModel.load`.
"""

from citadel_embeddings.backends.local.model import Encoded, LocalModel
from citadel_embeddings.backends.local.weights import LocalModelUnavailable

__all__ = ["Encoded", "LocalModel", "LocalModelUnavailable"]
