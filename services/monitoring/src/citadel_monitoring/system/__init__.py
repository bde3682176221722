"""Figures of the machine, within the limits of the control group that the worker runs in."""
