"""What is measured: one adapter a system, and what runs its server, its workers and its client.

Adapters (`celery`, `tq`, ...) run in the system's own Python environment and import nothing
of this project but `client`, `loads` and `worker`, which need the standard library alone.
The rest runs in the bench's: `catalog` says which systems there are, `running` runs them.
"""
