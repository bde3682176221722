"""Single requests, each on a connection of its own."""

import httpx

web = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
"""Shared: a client of its own would load all certificate authorities for each request."""
