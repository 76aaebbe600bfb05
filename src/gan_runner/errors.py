"""What can end a command other than success, and the exit code that stands for it. Only cli.py turns one into the other."""


class UserError(Exception):
    """The configuration or the input is wrong: one clear message, nothing created. Exit code 2."""


class Failed(Exception):
    """The run could not go on, through no fault of its configuration (a full disk, a folder that went away). Exit code 1."""


class Diverged(Exception):
    """A loss is no longer finite. Exit code 3."""


class Interrupted(Exception):
    """A signal asked the run to stop; its state was saved first. Exit code 128 + signal."""

    def __init__(self, signal: int):
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal
