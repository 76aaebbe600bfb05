"""Where a round is computed, and how it is executed."""
