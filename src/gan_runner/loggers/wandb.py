"""Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gan_runner.loggers.tracker import Entry, Said, Tracker, new_id

if TYPE_CHECKING:
    from gan_runner.training.run import Run


class WandB(Tracker):
    """Log to Weights & Biases: offline in FOLDER/wandb, sent later by `wandb sync`; mode=online sends at once.

    wandb reads its key itself (`wandb login` or $WANDB_API_KEY). Neither code nor the address of the git repository is sent.
    """

    package = "wandb"
    addresses = ("entity", "mode")

    def __init__(self, project: str = "gan-runner", entity: str | None = None, mode: Literal["offline", "online"] = "offline"):
        super().__init__()
        self.project, self.entity, self.mode = project, entity, mode

    def open(self, run: Run, said: Said, known: dict[str, str] | None) -> dict[str, str]:
        import wandb

        remembered = known or {"id": new_id(), "project": self.project}
        self.tracked = wandb.init(
            project=remembered["project"],
            entity=self.entity,
            mode=self.mode,
            id=remembered["id"],
            resume="allow" if self.mode == "online" else None,  # offline, wandb would warn: both parts carry the id
            name=said.name,
            config={**said.config, "overrides": said.overrides},
            allow_val_change=True,
            dir=str(run.folder),
            reinit="create_new",
            save_code=False,
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, login_timeout=30),
        )
        return remembered

    def send(self, entry: Entry) -> None:
        import wandb

        pictures: dict[str, Any] = {name: wandb.Image(picture) for name, picture in entry.pictures.items()}
        self.tracked.log({**entry.values, **pictures}, step=entry.step)

    def end(self, state: str) -> None:
        self.tracked.finish(exit_code=0 if state == "finished" else 1)
