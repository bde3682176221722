"""One question to one server per protocol; an answer of None means that all is well."""
