"""The scenarios: each a module whose `measure` returns figures of one subject."""
