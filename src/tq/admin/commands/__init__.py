"""The commands of tq-admin, a module a noun."""
