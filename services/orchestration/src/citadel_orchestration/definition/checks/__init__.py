"""Checks of definitions: each module checks one thing and reports all problems that it finds."""
