"""Embedding backends: Ollama, OpenAI's protocol, and the model in this process."""

from citadel_common.settings.embeddings import BackendSettings
from citadel_embeddings.backends.base import Backend
from citadel_embeddings.settings import EmbeddingsFragment


def open_backend(settings: BackendSettings, fragment: EmbeddingsFragment) -> Backend:
    """The backend of that kind."""
    if settings.kind == "ollama":
        from citadel_embeddings.backends.ollama import OllamaBackend

        return OllamaBackend(settings)
    if settings.kind == "openai":
        from citadel_embeddings.backends.openai import OpenAIBackend

        return OpenAIBackend(settings)
    from citadel_embeddings.backends.in_process import LocalBackend

    return LocalBackend(cache_dir=fragment.model_cache, threads=fragment.local_threads)


__all__ = ["Backend", "open_backend"]
