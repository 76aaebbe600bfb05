"""MLflow."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from gan_runner.loggers.hyperparameters import hyperparameters
from gan_runner.loggers.tracker import Entry, Said, Tracker, refuse_password

if TYPE_CHECKING:
    from gan_runner.training.run import Run

STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}
FORBIDDEN = re.compile(r"[^/\w.\- ]")  # in the name of a metric, such as the brackets of `fd/lenet (n=500)`
AT_ONCE = 100  # parameters that MLflow takes in one call


class MLflow(Tracker):
    """Log to MLflow, in the store `tracking_uri`; null: $MLFLOW_TRACKING_URI, else MLflow's default in the working folder.

    MLflow reads user and password of a server itself ($MLFLOW_TRACKING_USERNAME, ...). Pictures are artifacts NAME/step_N.png.
    """

    package = "mlflow"
    addresses = ("tracking_uri",)

    def __init__(self, tracking_uri: str | None = None, experiment: str = "gan-runner"):
        super().__init__()
        refuse_password("logger.mlflow.tracking_uri", tracking_uri, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        self.tracking_uri, self.experiment = tracking_uri, experiment

    def shown_by(self, folder: Path) -> list[str]:
        remote = self.tracking_uri is not None and self.tracking_uri.startswith(("http:", "https:"))
        return [] if remote else ["mlflow", "ui", *(["--backend-store-uri", self.tracking_uri] if self.tracking_uri else [])]

    def open(self, run: Run, said: Said, known: dict[str, str] | None) -> dict[str, str]:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the run waits meanwhile; a failed delivery is tried again later
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        self.client = MlflowClient(self.tracking_uri)
        if known:
            self.id = known["run_id"]
            self.client.update_run(self.id, status="RUNNING")
            return known
        self.id = self.client.create_run(self._experiment(), run_name=said.name).info.run_id
        parameters = [Param(key, str(value)[:6000]) for key, value in hyperparameters(said.config).items()]
        for at in range(0, len(parameters), AT_ONCE):
            self.client.log_batch(self.id, params=parameters[at : at + AT_ONCE])
        self.client.log_batch(self.id, tags=[RunTag("overrides", " ".join(said.overrides)[:5000])])
        self.client.log_text(self.id, OmegaConf.to_yaml(OmegaConf.create(said.config)), "config.yaml")
        return {"run_id": self.id}

    def _experiment(self) -> str:
        """Return the id of the experiment, created if it is missing; another job of a sweep may create it at the same time."""
        from mlflow.exceptions import MlflowException

        found: Any = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return self.client.create_experiment(self.experiment)
            except MlflowException:
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return found.experiment_id

    def scalars(self, step: int, values: dict[str, float]) -> None:
        super().scalars(step, {FORBIDDEN.sub("_", name): value for name, value in values.items()})

    def there(self, step: int) -> set[tuple[int, str]]:
        names = self.client.get_run(self.id).data.metrics
        return {(point.step, name) for name in names for point in self.client.get_metric_history(self.id, name) if point.step > step}

    def send(self, entry: Entry) -> None:
        from mlflow.entities import Metric

        if entry.values:
            now = int(1000 * time.time())
            self.client.log_batch(self.id, metrics=[Metric(name, value, now, entry.step) for name, value in entry.values.items()])
        for name, picture in entry.pictures.items():
            self.client.log_image(self.id, picture, artifact_file=f"{name}/step_{entry.step:08d}.png")

    def end(self, state: str) -> None:
        self.client.set_terminated(self.id, STATUS.get(state, "FAILED"))
