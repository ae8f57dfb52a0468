"""tq: a distributed task queue with its own durable broker."""
