"""The wire, without I/O: bytes in, messages out, and the other way round.

docs/protocol.md describes it for someone who writes a client in another language.
"""
