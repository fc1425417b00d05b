"""The tables of a protocol, one module a subject, and what they are written with."""
