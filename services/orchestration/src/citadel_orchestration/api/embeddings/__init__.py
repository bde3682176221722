"""Embedding texts: OpenAI's route, tasks, the cache, the models."""
