"""Citadel's Python SDK and command line."""
