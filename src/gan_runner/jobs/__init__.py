"""What a line of gan-train becomes: one run, the jobs of a sweep, the trials of a search; here or on a cluster."""
