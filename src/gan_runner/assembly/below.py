"""Extractors below other parts: they are shared, and their weights are left out of states, because training never changes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.findings import unfit
from gan_runner.game.spec import Spec


def leave_out_extractors(part: Any) -> None:
    """Leave the weights of extractors below a part out of its state_dict; loading a state keeps the weights that are there."""
    for module in part.modules() if isinstance(part, nn.Module) else ():
        if isinstance(module, Extractor) and module is not part:
            module.register_state_dict_post_hook(_drop)
            module.register_load_state_dict_pre_hook(_keep)


def _drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


def _keep(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    state.update({prefix + name: tensor for name, tensor in (*module.named_parameters(), *module.named_buffers())})


def share_extractors(parts: Mapping[str, nn.Module], spec: Spec) -> None:
    """Let parts below which the same extractor is use one object. UserError where its weights are missing or it cannot take such samples.

    Extractors are the same if they have the same class, name and checksum of weights.
    """
    known: dict[Any, Extractor] = {}
    for path, part in parts.items():
        for holder, name, extractor in list(extractors_below(part)):
            if reason := extractor.available() or unfit(extractor, spec):
                raise UserError(f"{path}: {reason}")
            setattr(holder, name, known.setdefault((type(extractor), extractor.name, extractor.checksum), extractor))


def extractors_below(part: nn.Module) -> Iterable[tuple[nn.Module, str, Extractor]]:
    """Yield (the module that holds it, the name of its attribute, the extractor)."""
    for module in part.modules():
        for name, child in module.named_children():
            if isinstance(child, Extractor):
                yield module, name, child
