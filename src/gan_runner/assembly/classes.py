"""Classes that a configuration names: which of them may be imported. Imports no torch."""

import importlib
from collections.abc import Sequence
from typing import Any

from gan_runner.config.command_line import allowed_packages
from gan_runner.errors import UserError, with_article


def locate(target: Any, base: type | tuple[type, ...], path: str, packages: Sequence[str]) -> type:
    """Find the class that a `_target_` names. UserError unless it may be imported and is a subclass of `base`."""
    roots = ("gan_runner", "torch.optim", *packages, *allowed_packages())
    if not isinstance(target, str) or not any(target.startswith(f"{root}.") for root in roots):
        raise UserError(
            f"{path}._target_={target} is not allowed: parts come from gan_runner or torch.optim, "
            "or from a package of yours that you name by 'packages=[...]' on the line (of gan-runs: --packages) or by GAN_RUNNER_PACKAGES"
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        unseen = isinstance(error, ModuleNotFoundError) and error.name == target.partition(".")[0]
        raise UserError(
            f"{path}._target_={target} cannot be imported: {error}"
            + ("; install that package, or start with PYTHONPATH=FOLDER, the folder that it is in" if unseen else "")
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        kinds = base if isinstance(base, tuple) else (base,)
        raise UserError(f"{path}._target_={target} is not {' or '.join(with_article(kind.__name__) for kind in kinds)}")
    return found
