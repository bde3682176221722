"""Double of Qdrant's REST API."""
