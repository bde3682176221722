"""Figures of the machine, and of the control group that the worker runs in."""
