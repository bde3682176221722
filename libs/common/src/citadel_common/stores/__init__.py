"""Clients of the stores: Redis and PostgreSQL."""
