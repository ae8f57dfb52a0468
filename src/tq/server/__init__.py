"""Thin adapters that let the outside reach the broker's service."""
