"""The version of the product, where every layer may read it; the build reads it here too."""

__version__ = "0.1.0"
