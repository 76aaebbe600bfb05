"""Configurations and command lines. Imports no torch."""
