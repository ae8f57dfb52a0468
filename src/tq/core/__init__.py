"""The vocabulary of the queue: values, with no behaviour beyond their own arithmetic.

Nothing in this package does I/O, reads a clock or draws a random number: time,
jitter and entropy are arguments.  Every other package speaks these words.
"""
