"""What is on the disk: files, checkpoints, run directories. Nothing that is read is executed."""
