"""The programs: the only place where the parts are wired together.

Flags, environment variables, files and signals end here; no other package reads them.
"""
