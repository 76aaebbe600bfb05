"""What a configuration is, and what a command line says. Imports no torch."""
