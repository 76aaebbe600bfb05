from gan_runner.loggers.csv_file import CSV as CSV
from gan_runner.loggers.mlflow import MLflow as MLflow
from gan_runner.loggers.tensorboard import TensorBoard as TensorBoard
from gan_runner.loggers.tensorboard import add_to_curves as add_to_curves
from gan_runner.loggers.tracker import Tracker as Tracker
from gan_runner.loggers.trackio import Trackio as Trackio
from gan_runner.loggers.wandb import WandB as WandB
from gan_runner.training.logger import Logger as Logger
