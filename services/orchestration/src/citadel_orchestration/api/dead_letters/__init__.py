"""Dead letters for operators."""
