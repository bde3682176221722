"""Probes: one question to one server per protocol, answered by the problem, or by None for a healthy server."""
