"""Batches of embedding requests."""
