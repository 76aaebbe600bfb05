"""Start, resume and complete runs, in one process or in several."""
