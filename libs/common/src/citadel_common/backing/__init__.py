"""Backing services that several of Citadel's services reach: how each is configured, and connections to PostgreSQL."""
