"""Read the configuration of a run, and make one portable. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from gan_runner.errors import UserError
from gan_runner.storage import older
from gan_runner.storage.documents import MARK, SIZE, document, is_allowed, refuse_growth
from gan_runner.storage.untrusted import parsed_yaml, read_bounded


def read_config(folder: Path) -> DictConfig:
    """Read the configuration of a run. UserError where there is none that can be read, or it has what a file must not have."""
    path = folder / "config.yaml"
    if not path.exists():
        raise UserError(f"{folder} is not a run directory: there is no config.yaml in it")
    data = read_bounded(path, SIZE)
    if parsed_yaml(data) is None:
        raise UserError(f"{path} cannot be read: it is no file of plain YAML, without aliases")
    try:
        config = document(data, str(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    refuse_growth(config, str(path))
    config = OmegaConf.create(older.translated(OmegaConf.to_container(config)))
    if not {"architecture", "batch_size", "dataset", "seed", "trainer"} <= config.keys():
        raise UserError(f"{path} is not the configuration of a run, or not all of it")
    return config


def portable(config: Any) -> dict[str, Any]:
    """Resolve the interpolations of a configuration, except those for the path of the data, which differs between machines."""
    tree = OmegaConf.create(config)

    def merge(raw: Any, resolved: Any, path: str) -> Any:
        if isinstance(raw, dict):
            return {key: merge(value, resolved[key], f"{path}.{key}") for key, value in raw.items()}
        leads_to_data = isinstance(raw, str) and MARK in raw and (path == ".dataset.root" or "dataset.root" in raw)
        return raw if leads_to_data and is_allowed(raw) else resolved

    return merge(OmegaConf.to_container(tree, resolve=False), OmegaConf.to_container(tree, resolve=True), "")
