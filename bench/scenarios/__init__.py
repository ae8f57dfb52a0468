"""The scenarios: each a module with `measure_tq` and, where the floor can do the like, `measure_floor`."""
