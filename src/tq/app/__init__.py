"""What user code declares: the app, its tasks and their handlers.

The names that programs use are in `tq` itself.
"""
