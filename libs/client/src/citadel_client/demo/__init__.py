"""A demonstration on real texts: Python's own documentation, embedded and asked."""
