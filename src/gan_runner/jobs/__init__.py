"""Turn a command line of gan-train into a single run, the jobs of a sweep or the trials of a search, on this machine or a cluster."""
