"""Conformance vectors: what any implementation, in any language, is held to; and its certificate.

`cases` are the inputs, `generation` the certified digits and the bounds, `vectors` reads and
judges, `oracle` answers for the NumPy oracle.
"""
