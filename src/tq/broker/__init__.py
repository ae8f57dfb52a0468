"""The broker: the engine, a store and connections, put together into a service."""
