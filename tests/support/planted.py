"""Secrets of the tests' servers and marked texts, which no log, span or metric may hold.

All of them hold one seal, so that one search finds whichever was told, and its own words say which it is.
"""

SEAL = "pl4nted"


def planted(name: str) -> str:
    """Return a secret or a text of that name; it fits into a URL, a header and a JSON string as it is."""
    return f"{SEAL}-{name}-8c1f"


REDIS_PASSWORD = planted("redis-password")
POSTGRES_PASSWORD = planted("postgres-password")
BACKEND_KEY = planted("embedding-key")
LLM_KEY = planted("llm-key")
QDRANT_KEY = planted("qdrant-key")
BEARER = planted("bearer-token")
RECEIVER_KEY = planted("otlp-header")

TEXT = planted("text")
QUESTION = planted("question")
"""For prompts; the LLM's double repeats their beginning."""
COMPLETION = planted("completion")
"""In what the LLM's double answers, whatever it is asked."""
CREDENTIALS = {"authorization": f"Bearer {BEARER}"}
"""Of a caller; a server that knows no keys takes any."""
