"""Clients of LLM endpoints."""
