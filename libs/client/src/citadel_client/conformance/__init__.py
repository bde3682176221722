"""Conformance run: what an embedding or LLM server does, and which settings fit it; needs no Citadel server."""
