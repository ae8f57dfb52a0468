"""Measurements: what the product does on this machine, beside what its libraries could do with no semantics at all."""
