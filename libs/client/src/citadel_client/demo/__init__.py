"""A demonstration on real texts: Python's own documentation, embedded and asked."""


class DemoFailed(Exception):
    """The demo did not do what it shows."""
