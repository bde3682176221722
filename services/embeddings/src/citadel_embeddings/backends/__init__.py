"""Embedding backends: Ollama, the OpenAI protocol, and the model in this process."""
