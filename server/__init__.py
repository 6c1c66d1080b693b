"""The speech server; `__version__` is the one place of the project's version."""

__version__ = "0.1.0"
