"""Classes are compared by name, from the data set to the state, the command line, the .npz file and the figure."""

import json
import shutil
import sys

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

import gan_runner
from command_settings import settings_of
from gan_runner import cli
from gan_runner.commands import sample
from gan_runner.commands.settings import Rate, Sample
from gan_runner.config import composer
from gan_runner.datasets import Spec
from gan_runner.datasets.classes import difference, label_of, refuse_renamed, translated
from gan_runner.datasets.stored import Stored
from gan_runner.errors import UserError
from gan_runner.evaluation.reference import Reference
from gan_runner.lifecycle import runs
from gan_runner.rating import page
from gan_runner.storage import checkpoint

ANIMALS = ("cat", "dog", "ship")
SHADES = {"cat": 20, "dog": 120, "ship": 220}


def shaded(path, shades=SHADES, n=12):
    """A folder of classes, each of pictures that are noise about a shade."""
    random = np.random.default_rng(0)
    for name, shade in shades.items():
        (path / name).mkdir(parents=True)
        for i, image in enumerate(random.integers(shade - 10, shade + 10, size=(n, 16, 16, 3))):
            Image.fromarray(image.astype(np.uint8)).save(path / name / f"{i:02d}.png")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A conditional run of two rounds on such a folder, which is beside it."""
    place = tmp_path_factory.mktemp("classes")
    shaded(place / "data")
    words = ["+experiment=dcgan_image_folder", f"dataset.path={place / 'data'}", "dataset.resolution=16", "trainer.steps=2", "batch_size=4"]
    words += ["architecture.generator.width=4", "architecture.discriminator.width=4", "callback.grid.n=4", "trainer.accelerator=cpu"]
    runs.train(composer.compose([*words, "architecture.conditional=true", "dataset.keep_decoded=false"]).config, place / "run")
    return place


@pytest.fixture
def copied(trained, tmp_path):
    """The same run and data, to be changed."""
    shutil.copytree(trained, tmp_path / "copy")
    place = tmp_path / "copy"
    text = (place / "run" / "config.yaml").read_text()
    (place / "run" / "config.yaml").write_text(text.replace(str(trained), str(place)))
    return place


def without_names(run):
    """The state of an older version."""
    path = run / "checkpoints" / "last.pt"
    state = checkpoint.load(path)
    del state["spec"]["class_names"]
    checkpoint.save(path, state)
    return run


def sampled(run, **words):
    sample.main(settings_of(Sample, run=str(run), accelerator="cpu", **{"n": 16, "format": "npz", **words}))


@pytest.fixture
def gan_eval(monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["gan-eval", *map(str, words), "accelerator=cpu"])
        code = cli.evaluate()
        said = capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines() if line.startswith("{")], said.err

    return command


WITHIN = ["metric=[intra_class_frechet]", "extractor=random_conv"]

# ---- names and numbers ----------------------------------------------------------------------------------------------------------------


def test_labels_are_translated_by_name():
    real, samples = Spec((2,), 3, class_names=("dog", "cat", "ship")), Spec((2,), 3, class_names=ANIMALS)
    assert translated(torch.tensor([0, 1, 2, 0]), real, samples).tolist() == [1, 0, 2, 1]
    assert translated(torch.tensor([0, 1, 2]), real, real).tolist() == [0, 1, 2]


@pytest.mark.parametrize("names", [None, ANIMALS])
def test_without_names_on_a_side_labels_are_numbers_if_there_are_as_many(names):
    named, bare = Spec((2,), 3, class_names=names), Spec((2,), 3)
    for real, samples in ((named, bare), (bare, named)):
        assert translated(torch.tensor([2, 0]), real, samples).tolist() == [2, 0]
        with pytest.raises(UserError, match=r"have (2|3) classes and the real ones (2|3), and not all of them have names"):
            translated(torch.tensor([0]), real, samples._replace(classes=2, class_names=None))


def test_other_classes_are_refused_with_what_lacks_samples():
    birds = ("airplane", "automobile", "bird")
    assert difference(ANIMALS, birds) == ("there are no samples of airplane, automobile, bird; there are no real samples of cat, dog, ship")
    assert difference(ANIMALS, ("cat", "dog")) == "there are no real samples of ship"
    assert difference(ANIMALS, ("ship", "cat", "dog")) == ""
    many = tuple(f"class {i}" for i in range(1000))
    assert difference((), many).endswith("class 7 and 992 more")
    with pytest.raises(UserError, match="there are no samples of airplane"):
        translated(torch.tensor([0]), Spec((2,), 3, class_names=birds), Spec((2,), 3, class_names=ANIMALS))


def test_a_class_is_said_by_name_or_number_and_a_name_wins():
    spec = Spec((2,), 3, class_names=("1", "10", "2"))
    assert [label_of(said, spec) for said in ("1", "10", "2", 1, 10, 2, 0, "0")] == [0, 1, 2, 0, 1, 2, 0, 0]
    assert label_of(2, Spec((2,), 3)) == 2
    for said in (3, "-1", "bird", "", "1.0"):
        with pytest.raises(ValueError, match="it must be 0 to 2 or one of 1, 10, 2"):
            label_of(said, spec)
    with pytest.raises(ValueError, match=r"there is no class 3: it must be 0 to 2$"):
        label_of(3, Spec((2,), 3))


def test_messages_move_no_cursor():
    with pytest.raises(ValueError, match="cat") as raised:
        label_of("x\x1b[2J", Spec((2,), 2, class_names=("cat\x1b[31m", "b\r\n")))
    assert str(raised.value).isprintable()


def test_a_spec_survives_a_checkpoint_and_a_file():
    for spec in (Spec((3, 8, 8), 3, class_names=ANIMALS), Spec((2,), 5), Spec((2,))):
        assert Spec.restored(json.loads(json.dumps(spec.saved()))) == spec
    assert Spec.restored({"shape": [2], "classes": 3}) == Spec((2,), 3)  # before there were names
    for wrong in ({"classes": 2}, {"class_names": ["a"]}, {"class_names": ["a", "a", "b"]}, {"class_names": [1, 2, 3]}, {"shape": [-1]}):
        with pytest.raises(ValueError):
            Spec.restored({"shape": [2], "classes": 3, "class_names": list("abc")} | wrong)


def test_names_that_changed_are_named():
    saved = Spec((2,), 3, class_names=ANIMALS)
    refuse_renamed(saved, saved, "data")
    refuse_renamed(Spec((2,), 3), saved, "data")
    with pytest.raises(UserError, match=r"belong to the classes cat, dog, ship, .* \(no longer there: ship; new: boat\)"):
        refuse_renamed(saved, Spec((2,), 3, class_names=("boat", "cat", "dog")), "data")
    with pytest.raises(UserError, match="the same names in another order"):
        refuse_renamed(saved, Spec((2,), 3, class_names=("dog", "cat", "ship")), "data")
    with pytest.raises(UserError, match="no longer there: cat, dog, ship"):
        refuse_renamed(saved, Spec((2,), None), "data")


# ---- a run ----------------------------------------------------------------------------------------------------------------------------


def test_the_state_keeps_the_names_in_the_order_of_the_labels(trained):
    state = checkpoint.load(trained / "run" / "checkpoints" / "last.pt")
    assert state["spec"] == {"shape": [3, 16, 16], "classes": 3, "class_names": ["cat", "dog", "ship"], "symbols": None}
    assert gan_runner.load(trained / "run").spec.class_names == ANIMALS


@pytest.mark.parametrize("new", ["zebra", "ant"])
def test_a_run_whose_class_folders_changed_is_not_resumed(copied, new):
    if new == "zebra":
        (copied / "data" / "cat").rename(copied / "data" / "zebra")  # as many classes, and every label another one
    else:
        shutil.copytree(copied / "data" / "cat", copied / "data" / "ant")
    before = (copied / "run" / "status.json").read_bytes()
    with pytest.raises(UserError, match=f"new: {new}"):
        runs.resume(copied / "run", ["trainer.steps=3"])
    assert (copied / "run" / "status.json").read_bytes() == before


def test_a_state_without_names_is_resumed_in_alphabetical_order(copied):
    without_names(copied / "run")
    runs.resume(copied / "run", ["trainer.steps=3"])
    assert checkpoint.load(copied / "run" / "checkpoints" / "last.pt")["spec"]["class_names"] == ["cat", "dog", "ship"]


def test_a_class_is_sampled_by_name(trained):
    run = gan_runner.load(trained / "run")
    assert torch.equal(run.sample(4, y="dog"), run.sample(4, y=1))
    assert not torch.equal(run.sample(4, y="dog"), run.sample(4, y="ship"))
    with pytest.raises(ValueError, match="there is no class bird: it must be 0 to 2 or one of cat, dog, ship"):
        run.sample(4, y="bird")


def test_a_state_without_names_takes_those_of_its_data_where_they_are(copied):
    assert gan_runner.load(without_names(copied / "run")).spec.class_names == ANIMALS
    shutil.rmtree(copied / "data")
    run = gan_runner.load(copied / "run")
    assert run.spec.class_names is None
    assert run.sample(2, y=2).shape == (2, 3, 16, 16)


def test_arrays_carry_the_labels_that_were_drawn_and_their_names(trained, tmp_path):
    run = gan_runner.load(trained / "run")
    for said, label in ((None, None), ("ship", 2), (1, 1)):
        sampled(trained / "run", out=str(tmp_path / "x.npz"), **{"class": said})
        with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
            assert file["class_names"].tolist() == list(ANIMALS)
            x, labels = file["samples"], torch.from_numpy(file["labels"])
        assert len({*labels.tolist()}) == (3 if label is None else 1)
        assert np.array_equal(x, ((run.sample(16, labels) + 1) * 127.5).round().clamp(0, 255).byte().numpy())
        assert label is None or labels.tolist() == [label] * 16
    spec = Stored(str(tmp_path / "x.npz")).spec
    assert (spec.classes, spec.class_names) == (3, ANIMALS)


def test_an_interpolation_is_of_the_class_that_was_asked_for(trained, tmp_path):
    for name in ("cat", "ship"):
        sampled(trained / "run", format="interpolation", n=20, out=str(tmp_path / f"{name}.png"), **{"class": name})
    assert (tmp_path / "cat.png").read_bytes() != (tmp_path / "ship.png").read_bytes()


def test_a_name_never_becomes_a_path(copied):
    path = copied / "run" / "checkpoints" / "last.pt"
    state = checkpoint.load(path)
    state["spec"]["class_names"][1] = "../../../escaped"
    checkpoint.save(path, state)
    sampled(copied / "run", **{"class": "../../../escaped"})
    assert (copied / "run" / "samples" / "last_npz_seed0_class1.npz").is_file()


@pytest.mark.parametrize(
    ("said", "message"), [("bird", "class=bird: there is no class bird: it must be 0 to 2 or one of cat, dog, ship"), (3, "class=3: ")]
)
def test_what_is_no_class_is_refused(trained, said, message):
    with pytest.raises(UserError, match=message):
        sampled(trained / "run", **{"class": said})


def test_an_exported_generator_carries_the_names(trained, tmp_path):
    sampled(trained / "run", export=str(tmp_path / "model.safetensors"))
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["spec"])["class_names"] == list(ANIMALS)
    assert gan_runner.load_generator(tmp_path / "model.safetensors").classes == 3


def test_a_state_with_names_that_do_not_fit_is_refused(copied):
    path = copied / "run" / "checkpoints" / "last.pt"
    state = checkpoint.load(path)
    state["spec"]["class_names"].append("bird")
    checkpoint.save(path, state)
    with pytest.raises(UserError, match="3 different class names"):
        gan_runner.load(copied / "run")


# ---- figures --------------------------------------------------------------------------------------------------------------------------


def test_classes_of_other_names_are_not_compared(gan_eval, tmp_path):
    fake, real = shaded(tmp_path / "fake"), shaded(tmp_path / "real", {"airplane": 20, "automobile": 120, "bird": 220})
    code, lines, said = gan_eval(f"samples={fake}", f"reference={real}", *WITHIN)
    assert (code, lines) == (2, [])
    assert "there are no samples of airplane, automobile, bird; there are no real samples of cat, dog, ship" in said
    assert gan_eval(f"samples={fake}", f"reference={real}", "metric=[frechet_distance]", "extractor=random_conv")[0] == 0
    code, _, said = gan_eval(f"samples={fake}", f"reference={real}", "metric=[ms_ssim]")
    assert code == 2
    assert "there are no samples of airplane" in said


def test_some_classes_in_common_are_not_enough(gan_eval, tmp_path):
    fake, real = shaded(tmp_path / "fake"), shaded(tmp_path / "real", {"bird": 220, **SHADES})
    code, _, said = gan_eval(f"samples={fake}", f"reference={real}", *WITHIN)
    assert code == 2
    assert "there are no samples of bird" in said
    assert "no real samples" not in said


def test_the_order_of_names_moves_no_figure(gan_eval, tmp_path):
    """The same images with their classes in another order: each class is at distance 0 from itself."""
    folder = shaded(tmp_path / "real")
    items = Stored(str(folder)).load("train")
    order = ("ship", "cat", "dog")
    labels = np.array([order.index(ANIMALS[k]) for k in items.y])
    np.savez(tmp_path / "fake.npz", samples=items.x.numpy(), labels=labels, class_names=np.array(order))
    code, [line], _ = gan_eval(f"samples={tmp_path / 'fake.npz'}", f"reference={folder}", *WITHIN)
    assert code == 0
    assert max(line["metrics"].values()) == pytest.approx(0, abs=1e-6)
    assert line["protocol"]["classes"] == list(order)
    assert "labels" not in line["protocol"]
    np.savez(tmp_path / "fake.npz", samples=items.x.numpy(), labels=labels)  # without names, the numbers are what there is
    code, [line], _ = gan_eval(f"samples={tmp_path / 'fake.npz'}", f"reference={folder}", *WITHIN)
    assert line["protocol"]["labels"] == "taken as numbers: a side has no class names"
    assert min(line["metrics"].values()) > 1
    np.savez(tmp_path / "fake.npz", samples=items.x.numpy(), labels=labels % 2)
    code, _, said = gan_eval(f"samples={tmp_path / 'fake.npz'}", f"reference={folder}", *WITHIN)
    assert code == 2
    assert "the samples have 2 classes and the real ones 3" in said


def test_a_run_is_judged_in_its_own_order(trained, gan_eval, tmp_path):
    """The real images in another order of classes: the same figures, class by class."""
    folder = trained / "data"
    items, order = Stored(str(folder)).load("train"), ("ship", "dog", "cat")
    np.savez(
        tmp_path / "real.npz",
        samples=items.x.numpy(),
        labels=np.array([order.index(ANIMALS[k]) for k in items.y]),
        class_names=np.array(order),
    )
    lines = [
        gan_eval(f"run={trained / 'run'}", "n=60", f"reference={where}", f"out={tmp_path}", *WITHIN)[1][0]
        for where in (folder, tmp_path / "real.npz")
    ]
    assert lines[0]["metrics"] == pytest.approx(lines[1]["metrics"], rel=1e-6)
    assert lines[0]["protocol"]["classes"] == lines[1]["protocol"]["classes"] == list(ANIMALS)


def test_what_gan_sample_wrote_is_judged_by_its_labels(trained, gan_eval, tmp_path):
    """The same samples, from the run and from the file."""
    sampled(trained / "run", n=60, out=str(tmp_path / "x.npz"))
    words = [f"reference={trained / 'data'}", f"out={tmp_path}", *WITHIN]
    [direct], [stored] = (
        gan_eval(*source, *words)[1] for source in ([f"run={trained / 'run'}", "n=60"], [f"samples={tmp_path / 'x.npz'}"])
    )
    assert stored["metrics"] == pytest.approx(direct["metrics"], rel=1e-6)


def test_a_split_that_lacks_a_class_keeps_the_labels_of_the_others(tmp_path):
    shaded(tmp_path / "train")
    shaded(tmp_path / "test", {"dog": 120, "ship": 220})
    data = Stored(str(tmp_path))
    assert data.spec.class_names == ANIMALS
    assert {*data.open("test").labels.tolist()} == {1, 2}


def test_a_run_is_rated_class_by_class_of_the_same_name(copied):
    """The folder has been given another class since, before the others in the alphabet: its real images are of no class of the run."""
    settings = settings_of(Rate, run=str(copied / "run"), pool=8, practice=2, accelerator="cpu")
    pairs, _ = page.gathered(settings)
    y = torch.randint(3, (10,), generator=gan_runner.draws.seeded("rating classes", 0))
    assert (pairs.real.float().mean((1, 2, 3)) / 100).round().int().tolist() == y.tolist()
    shaded(copied / "data" / "..", {"ant": 5})
    (copied / "ant").rename(copied / "data" / "ant")
    with pytest.raises(UserError, match="there are no samples of ant"):
        page.gathered(settings)


# ---- labels that are not there --------------------------------------------------------------------------------------------------------


class Partly(gan_runner.Dataset):
    """Three classes, whose labels only one split has."""

    def __init__(self, labels=None):
        self.labels = labels

    spec = Spec((2,), 3)

    def load(self, split):
        x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
        return gan_runner.datasets.Samples(x, self.labels if split == "train" else None)


def test_a_split_without_labels_has_none():
    data = Reference(Partly(torch.arange(30) % 3), "train")
    assert data.labels is not None
    assert data.of("test").labels is None


@pytest.mark.parametrize("labels", [torch.arange(30), torch.arange(30) % 3 - 1])
def test_labels_beyond_the_classes_are_refused_wherever_they_enter(labels):
    with pytest.raises(UserError, match="the train split of partly has labels from"):
        _ = Reference(Partly(labels), "train").labels
    with pytest.raises(UserError, match="the train split of partly has labels from"):
        gan_runner.datasets.stream(Partly(labels), "train", 4, 0, "cpu")


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "b"), ("a", "b", "c", "d")])
def test_every_class_has_a_name_of_its_own(names):
    data = Partly(torch.arange(30) % 3)
    data.spec = Spec((2,), 3, class_names=names)
    with pytest.raises(UserError, match=f"has 3 classes and {len({*names})} different names for them: a, b"):
        gan_runner.datasets.stream(data, "train", 4, 0, "cpu")


def test_a_conditional_run_needs_labels(tmp_path, monkeypatch):
    load = gan_runner.datasets.Ring8.load
    monkeypatch.setattr(gan_runner.datasets.Ring8, "load", lambda self, split: gan_runner.datasets.Samples(load(self, split).x))
    words = ["+experiment=ring8", "architecture.conditional=true", "trainer.steps=1", "trainer.accelerator=cpu"]
    with pytest.raises(UserError, match="the train split of ring8 has none"):
        runs.train(composer.compose(words).config, tmp_path / "run")
    assert gan_runner.datasets.stream(Partly(), "train", 4, 0, "cpu") is not None
    with pytest.raises(UserError, match="the train split of partly has none"):
        gan_runner.datasets.stream(Partly(), "train", 4, 0, "cpu", labelled=True)
