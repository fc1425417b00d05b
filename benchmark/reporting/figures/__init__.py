"""The figures of a protocol, one module a subject, and their common style."""
