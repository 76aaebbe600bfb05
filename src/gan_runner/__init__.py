"""gan-runner: a config-driven experiment runner for generative adversarial networks.

    run = gan_runner.load("outputs/gaussians25/...")
    x = run.sample(64)

The names below are imported on first use, so that the commands start without torch.
"""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy(init: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return __getattr__, __dir__ and __all__ of a package whose names are imported on first use.

    init: the package's `__init__.py`. The names are those that the `__init__.pyi` beside it imports, which is also what type checkers read.
    None may be the name of a module of the package, since importing that module would replace it.
    """
    stub = Path(init).with_suffix(".pyi")
    package = ".".join(stub.parent.relative_to(Path(__file__).parents[1]).parts)
    home = {
        name.asname: statement.module
        for statement in ast.parse(stub.read_text()).body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for name in statement.names
        if name.asname
    }

    def find(name: str) -> Any:
        if name in home:
            return getattr(importlib.import_module(home[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted(home), sorted(home)


__getattr__, __dir__, __all__ = lazy(__file__)
