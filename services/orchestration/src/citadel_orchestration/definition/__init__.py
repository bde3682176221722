"""Workflow definitions: their form, their expressions, and what is wrong with them."""
