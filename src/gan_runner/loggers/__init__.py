"""Where the numbers and pictures of a run go."""

from gan_runner.loggers.csv_file import CSV
from gan_runner.loggers.logger import Logger, flat
from gan_runner.loggers.mlflow import MLflow
from gan_runner.loggers.tensorboard import TensorBoard, add_to_curves
from gan_runner.loggers.tracker import Tracker
from gan_runner.loggers.trackio import Trackio
from gan_runner.loggers.wandb import WandB

__all__ = ["CSV", "Logger", "MLflow", "TensorBoard", "Tracker", "Trackio", "WandB", "add_to_curves", "flat"]
