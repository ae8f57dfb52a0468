"""Depth: what millions of tasks that wait, retry or are kept cost in memory, rates, restarts and disk."""
