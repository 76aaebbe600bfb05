"""Run the commands gan-sample and gan-eval."""
