"""The built-in model: all-MiniLM-L6-v2 on the CPU, on CTranslate2.

Importing this package costs nothing but NumPy; the optional packages are imported by ``LocalModel.load``.
"""

from citadel_embeddings.backends.local.errors import LocalModelUnavailable
from citadel_embeddings.backends.local.model import Encoded, LocalModel

__all__ = ["Encoded", "LocalModel", "LocalModelUnavailable"]
