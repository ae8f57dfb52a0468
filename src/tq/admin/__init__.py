"""tq-admin: what an operator asks of a running broker, as tables or as JSON."""
