"""Submitting and planning workflows."""
