"""The outer loop, and the base classes of callbacks and loggers."""
