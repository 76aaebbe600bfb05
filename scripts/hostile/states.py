"""Checkpoints that act, that fill the memory, or that belong to something else; runs whose configuration or data are others by now."""

import functools
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.characters import in_config, set_in
from hostile.stage import Attack, Stage, clear, put


class Payload:
    """Touches the file that only executed code makes, when it is unpickled."""

    def __init__(self, owned: Path, how: str = "os.system"):
        self.owned, self.how = owned, how

    def __reduce__(self) -> Any:
        line = f"touch '{self.owned}'"
        if self.how == "exec":
            return exec, (f"import os; os.system({line!r})",)
        return (os.system, (line,)) if self.how == "os.system" else (eval, (f"__import__('os').system({line!r})",))


def everywhere(stage: Stage, data: bytes) -> None:
    """These bytes in the place of every checkpoint."""
    for path in sorted((stage.run / "checkpoints").iterdir()):
        put(path, data)


def saved(state: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read(path: Path) -> dict[str, Any]:
    import torch

    return torch.load(path, weights_only=True)


def pickled(how: str, place: str) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        payload = Payload(stage.owned, how)
        if place == "plain":
            everywhere(stage, pickle.dumps(payload))
        elif place == "legacy":
            import torch

            buffer = io.BytesIO()
            torch.save({"version": 2, "game": payload}, buffer, _use_new_zipfile_serialization=False)
            everywhere(stage, buffer.getvalue())
        else:
            state = read(stage.run / "checkpoints/last.pt")
            everywhere(stage, saved(state | {place: payload}))

    return spoil


def script(stage: Stage) -> None:
    """A program of TorchScript."""
    import torch

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    everywhere(stage, buffer.getvalue())


def bomb(stage: Stage) -> None:
    """A state whose largest record is 2.5 GB of zeros once it is read."""
    with zipfile.ZipFile(stage.run / "checkpoints/last.pt") as whole:
        contents = {info.filename: whole.read(info) for info in whole.infolist()}
    largest = max((name for name in contents if "/data/" in name), key=lambda name: len(contents[name]))
    path = stage.root / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for name, data in contents.items():
            if name != largest:
                out.writestr(name, data)
        with out.open(largest, "w", force_zip64=True) as record:
            for _ in range(160):
                record.write(bytes(2**24))
    for target in sorted((stage.run / "checkpoints").iterdir()):
        clear(target)
        shutil.copy(path, target)


def altered(change: Callable[[dict[str, Any]], Any]) -> Callable[[Stage], None]:
    """A state that was changed and is whole otherwise, in the place of every checkpoint."""

    def spoil(stage: Stage) -> None:
        state = read(stage.run / "checkpoints/last.pt")
        result = change(state)
        everywhere(stage, saved(state if result is None else result))

    return spoil


def each_weight(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """Changes the tensors of floats in the state of the game."""

    def visit(node: Any) -> Any:
        import torch

        if isinstance(node, dict):
            return {key: visit(value) for key, value in node.items()}
        if isinstance(node, list):
            return [visit(value) for value in node]
        return change(node) if isinstance(node, torch.Tensor) and node.is_floating_point() else node

    return lambda state: state.update(game=visit(state["game"]))


def first_weight(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """Changes the first tensor of floats with more than one dimension."""

    def once(state: dict[str, Any]) -> None:
        done: list[bool] = []

        def one(tensor: Any) -> Any:
            if done or tensor.dim() < 2:
                return tensor
            done.append(True)
            return change(tensor)

        each_weight(one)(state)

    return once


def foreign() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """States of something else, by what was done."""
    import torch

    return {
        "weights are nan": each_weight(lambda tensor: torch.full_like(tensor, torch.nan)),
        "weights are infinite": each_weight(lambda tensor: torch.full_like(tensor, torch.inf)),
        "weights in half precision": each_weight(lambda tensor: tensor.half()),
        "weights are complex": each_weight(lambda tensor: tensor.to(torch.complex64)),
        "weights are whole numbers": each_weight(lambda tensor: tensor.long()),
        "a weight of another shape": first_weight(lambda tensor: tensor[:1]),
        "a weight without elements": first_weight(lambda tensor: tensor[:0]),
        "a weight that is expanded to a terabyte": first_weight(lambda tensor: tensor.flatten()[:1].expand(2**38)),
        "a weight that is sparse": first_weight(lambda tensor: tensor.to_sparse()),
        "a weight without storage": first_weight(lambda tensor: tensor.to("meta")),
        "a weight that is a text": first_weight(lambda tensor: "x"),
        "a negative step": lambda state: state.update(step=-3),
        "a step beyond all numbers": lambda state: state.update(step=2**62),
        "random states of another length": lambda state: state.update(rng=[{"cpu": torch.zeros(7, dtype=torch.uint8)}]),
        "random states of ten processes": lambda state: state.update(rng=state["rng"] * 10),
        "no networks": lambda state: state.update(game={}),
        "callbacks of another kind": lambda state: state.update(callbacks={"evaluate": [1, 2], "x": {"y": "z"}}),
        "another position in the data": lambda state: state["batches"].update(position=-(10**18)),
        "another space of samples": lambda state: state.update(spec={"shape": [10**6, 10**6], "classes": 10**9}),
        "900 levels": lambda state: functools.reduce(lambda inner, _: [inner], range(900), []),
        "keys of every kind": lambda state: {**state, 3: 1, "game": {**state["game"], "\x1b[2J\nFORGED": 1}},
    }


def of_another(stage: Stage) -> None:
    """The states of a run with other networks."""
    import torch

    state = read(stage.outside / "another/checkpoints/last.pt")
    state["game"] = {key: value for key, value in reversed(state["game"].items()) if not isinstance(value, torch.Tensor)}
    everywhere(stage, saved(state))


def attacks() -> Iterator[Attack]:
    for how, place in (("os.system", "game"), ("exec", "callbacks"), ("os.system", "plain"), ("os.system", "legacy"), ("eval", "rng")):
        yield Attack("pickle", f"{how} in a checkpoint ({place})", "run", pickled(how, place))
    yield Attack("pickle", "TorchScript", "run", script)
    yield Attack("bomb", "a checkpoint that grows to 2.5 GB", "points", bomb)
    for name in foreign():
        yield Attack("state of something else", name, "run", lambda stage, name=name: altered(foreign()[name])(stage))
    yield Attack("state of something else", "of another run", "pictures", of_another)
    yield from silent()


# ---- what would be wrong without a word -------------------------------------------------------------------------------------------------


def black(stage: Stage) -> None:
    from PIL import Image

    for path in pictures(stage):
        Image.new("RGB", Image.open(path).size).save(path)


def pictures(stage: Stage) -> list[Path]:
    return sorted((stage.here / "images").rglob("*.png"))


def exchanged(stage: Stage) -> None:
    """Two images of two classes in each other's place."""
    one, other = stage.here / "images/a/00.png", stage.here / "images/b/01.png"
    data = one.read_bytes(), other.read_bytes()
    put(one, data[1])
    put(other, data[0])


def silent() -> Iterator[Attack]:
    """Configurations that were edited by hand and data that were replaced: a resume has to refuse, or to name what differs."""
    points = {
        "loss": ("loss", {"_target_": "gan_runner.losses.NonSaturating"}, "loss"),
        "batch size": ("batch_size", 8, "batch_size"),
        "seed": ("seed", 123, "seed"),
        "micro-batches": ("trainer.accumulate", 2, "accumulate"),
        "precision": ("trainer.precision", "bf16", "precision"),
        "weight of a penalty": ("penalty.gradient_penalty.weight", 7.5, "weight"),
        "moves of D": ("rule.d_steps", 3, "d_steps"),
        "rate of G": ("optimizer.generator.lr", 0.01, "lr"),
        "points of the data": ("dataset.seed", 9, "dataset"),
        "average of G": ("trick.ema.halflife_kimg", 3.0, "halflife_kimg"),
        "a trick less": ("trick", {}, "trick"),
        "determinism": ("deterministic", True, "deterministic"),
    }
    for name, (key, value, named) in points.items():
        said = r"\b(changed|differs?|made with|was|were|other|another|edited)\b"
        answer = {"train": rf"{said}.*\b{named}\b|\b{named}\b.*{said}"}
        yield Attack("edited configuration", name, "points", in_config(set_in(key, value)), answer)
    data: dict[str, Callable[[Stage], None]] = {
        "all images are black": black,
        "one image is another": lambda stage: shutil.copy(stage.here / "images/a/00.png", stage.here / "images/a/02.png") and None,
        "an image less": lambda stage: pictures(stage)[3].unlink(),
        "images more": lambda stage: [shutil.copy(path, path.with_name(f"x{path.name}")) for path in pictures(stage)] and None,
        "images have changed their class": exchanged,
        "a class more": lambda stage: shutil.copytree(stage.here / "images/a", stage.here / "images/0") and None,
        "all images have other names": lambda stage: [path.rename(path.with_name(f"x{path.name}")) for path in pictures(stage)] and None,
    }
    for name, spoil in data.items():
        yield Attack("replaced data", name, "pictures", spoil, {"train": "refuse"})
