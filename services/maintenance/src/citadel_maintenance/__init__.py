"""Maintenance: clean-up, retention and the periodic schedule."""
