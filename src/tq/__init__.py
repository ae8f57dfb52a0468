"""tq: a distributed task queue with its own durable broker."""

__all__ = ["__version__"]

__version__ = "0.1.0"
