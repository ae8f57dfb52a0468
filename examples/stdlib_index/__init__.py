"""An index of the Python standard library, made by tasks: one source file each.

    python -m examples.stdlib_index asyncio email

starts a broker and a worker, indexes every file of this machine's standard library in
child processes, the named packages first, and compares the sum with a sequential run.
`tq-worker -A examples.stdlib_index:app -P process` runs the tasks of any other producer.
"""

from examples.stdlib_index.tasks import app

__all__ = ["app"]
