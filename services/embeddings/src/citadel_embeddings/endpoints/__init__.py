"""The servers of a backend: choice, limits, breakers and calls."""
