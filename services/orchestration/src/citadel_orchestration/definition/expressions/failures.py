"""What can be wrong with an expression."""


class Malformed(Exception):
    """The text is no expression that could ever be evaluated.

    Attributes:
        code: Stable name of the kind.
        reason: What is wrong.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Failed(Exception):
    """The evaluation failed on these values; `&&`, `||` may still have an answer."""


class Exhausted(Exception):
    """The evaluation is over its budget; nothing may absorb that."""
