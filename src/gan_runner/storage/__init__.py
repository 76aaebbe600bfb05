"""Read and write files, checkpoints and run directories. No code in them is executed."""
