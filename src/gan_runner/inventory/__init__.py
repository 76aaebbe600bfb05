"""gan-runs: the runs of a folder as a table, as curves or as a page; and deleting them."""
