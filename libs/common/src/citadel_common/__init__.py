"""Citadel's shared library: what the services agree on and stand on."""
