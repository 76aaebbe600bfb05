"""gan-runs: show the runs of a folder as a table, as curves or as a page; delete runs."""
