"""The soak: minutes of load with failures, deaths and cut connections, and what grows meanwhile."""
