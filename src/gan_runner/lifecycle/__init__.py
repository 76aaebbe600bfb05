"""A run from its configuration to its end, in one process or in several."""
