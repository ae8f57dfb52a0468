"""The pure state machine: commands in, changes out.

Nothing here does I/O, reads a clock or draws a random number.  The way in is
`tq.engine.engine.Engine`; ARCHITECTURE.md follows one task through the modules.
"""
