# Generated from _async by `make sync-client`; edits here are lost.
"""The blocking client."""
