"""The event file that gan-eval watch=true adds to."""

import random

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner.errors import Failed
from gan_runner.loggers import Curves
from gan_runner.storage import contents

PICTURE = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)


def path_of(root):
    (root / "evaluations").mkdir(parents=True, exist_ok=True)
    return root / contents.WATCHED_CURVES


def write(root):
    curves = Curves(path_of(root), root)
    for step in (10, 20):
        curves.add(step, {"fd/identity": 0.5, "modes/kl (n=5)": 1.0 / step}, {"map": PICTURE + step})


def seen(root):
    """What TensorBoard reads."""
    events = EventAccumulator(str(root / "evaluations"), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    scalars = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: [(each.step, each.encoded_image_string) for each in events.Images(tag)] for tag in tags["images"]}


def test_tensorboard_shows_numbers_and_pictures(tmp_path):
    write(tmp_path)
    scalars, pictures = seen(tmp_path)
    assert scalars == {"fd/identity": [(10, 0.5), (20, 0.5)], "modes/kl (n=5)": [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))]}
    assert [step for step, _ in pictures["map"]] == [10, 20]
    assert pictures["map"][0][1] != pictures["map"][1][1]


def test_cut_anywhere_and_written_again_it_is_the_whole_file_with_each_point_once(tmp_path):
    write(tmp_path)
    path = path_of(tmp_path)
    whole, data = seen(tmp_path), path.read_bytes()
    for cut in {0, 1, 11, 12, len(data) - 1, len(data), *random.Random(0).sample(range(len(data)), 30)}:
        for tail in (b"", bytes(20)):  # zeros: what some file systems leave after a power cut
            path.write_bytes(data[:cut] + tail)
            write(tmp_path)
            assert seen(tmp_path) == whole


def test_a_flipped_byte_ends_what_is_kept(tmp_path):
    write(tmp_path)
    path = path_of(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    whole = len(path.read_bytes())
    Curves(path, tmp_path)
    assert 0 < path.stat().st_size < whole


def test_another_value_of_the_same_step_is_added(tmp_path):
    curves = Curves(path_of(tmp_path), tmp_path)
    for value in (1.0, 1.0, 2.0):
        curves.add(10, {"a": value}, {})
    assert seen(tmp_path)[0] == {"a": [(10, 1.0), (10, 2.0)]}


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "mine").write_bytes(b"precious")
    path = path_of(tmp_path)
    curves = Curves(path, tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "mine")
    with pytest.raises(Failed, match=r"events\.out\.tfevents\.watch could not be written"):
        curves.add(10, {"a": 1.0}, {})
    assert (tmp_path / "mine").read_bytes() == b"precious"
