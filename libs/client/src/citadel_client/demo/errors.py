"""The error of the demo, in a module that loads no NumPy: all commands load this one."""


class DemoFailed(Exception):
    """The demo did not do what it is to show."""
