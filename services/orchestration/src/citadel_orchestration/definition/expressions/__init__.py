"""Expressions: CEL inside `${{ }}`, over plain JSON values, in bounded time and size.

cel-python gives the grammar and the literals. The evaluator is our own: it works on JSON values as they are, so a
value goes through an expression unchanged and unconverted, and it spends a budget on everything that can grow.
"""
