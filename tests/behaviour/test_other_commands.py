"""Runs of other kinds of models by the commands: what they write, log, sample and evaluate; and what is refused."""

import json
import signal
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import other_models
from gan_runner import cli, load

CONFIGS = Path(other_models.__file__).with_name("configs")
SMALL = ["trainer.steps=4", "batch_size=16", "callback.grid.every_steps=2", "callback.grid.n=6", "trainer.threads=1"]
RECIPES = {
    "flow": ["architecture=flow", "loss=likelihood", "rule=solo", "dataset=ring8", "trick=[ema]", "metric=[mode_coverage]"],
    "text": ["architecture=chars", "dataset=words"],
    "sound": ["architecture=waves", "dataset=tones"],
    "walks": ["architecture=walks", "dataset=karate"],
    "holes": ["architecture=inpainter", "dataset=triangles", "dataset.n_train=200", "dataset.n_test=100", "metric=[skill_rating]"],
}


@pytest.fixture
def gan(monkeypatch, capfd, tmp_path):
    """(exit code, what was said) of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(name, *words):
        more = ["--config-dir", str(CONFIGS)] if name == "train" else []
        monkeypatch.setattr(sys, "argv", [f"gan-{name}", *more, "packages=[other_models]", *words])
        capfd.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return getattr(cli, name)(), "".join(capfd.readouterr())
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return command


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "audio": 0, "images": 0}).Reload()


def shown(folder):
    """What the pages of TensorBoard list: plugin -> tags. A tag belongs to the first plugin that wrote it."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    found = {}
    for plugin in ("images", "audio", "text"):
        listing = provider.list_tensors if plugin == "text" else provider.list_blob_sequences
        runs = listing(RequestContext(), experiment_id="", plugin_name=plugin)
        found[plugin] = {tag for tags in runs.values() for tag in tags}
    return found


@pytest.mark.slow
def test_pictures_texts_and_sounds_have_pages_in_tensorboard(gan):
    for name in ("text", "sound", "walks"):
        assert gan("train", *RECIPES[name], *SMALL, f"hydra.run.dir={name}")[0] == 0
        found = shown(name)
        assert found["images"] == {"data/real", "samples/fixed_z"}
        assert found["text"] == {"config/text_summary"} | ({"samples/fixed_z/text_summary"} if name == "text" else set())
        assert found["audio"] == ({"samples/fixed_z/audio"} if name == "sound" else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_is_the_same_when_it_is_stopped_and_resumed(gan, name):
    assert gan("train", *RECIPES[name], *SMALL, "hydra.run.dir=whole")[0] == 0
    assert gan("train", *RECIPES[name], *SMALL, "trainer.steps=2", "hydra.run.dir=parts")[0] == 0
    assert gan("train", "resume=parts", "trainer.steps=4")[0] == 0
    whole, parts = (torch.load(Path(run, "checkpoints/last.pt"), weights_only=True)["game"] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole if isinstance(whole[key], torch.Tensor))
    said = gan("sample", "run=parts", "format=npz", "n=5", "out=five.npz")
    assert said[0] == 0, said
    with np.load("five.npz") as stored:
        assert len(stored["samples"]) == 5


@pytest.mark.slow
def test_text_is_a_file_and_a_page_of_tensorboard(gan):
    assert gan("train", *RECIPES["text"], *SMALL, "hydra.run.dir=run")[0] == 0
    lines = Path("run/samples/step_00000004.txt").read_text().splitlines()
    assert [len(line) for line in lines] == 6 * [8]
    (shown,) = [event for event in events("run").Tensors("samples/fixed_z/text_summary") if event.step == 4]
    assert shown.tensor_proto.string_val[0].decode().splitlines() == [f"    {line}" for line in lines]
    assert gan("sample", "run=run", "format=files", "n=6", "out=words")[0] == 0
    assert Path("words.txt").read_text().splitlines() == lines
    assert load("run", packages=["other_models"]).sample(3).dtype == torch.int64
    assert json.loads(json.dumps(torch.load("run/checkpoints/last.pt", weights_only=True)["spec"]))["symbols"] == 27


@pytest.mark.slow
def test_sound_is_a_file_and_is_played_by_tensorboard(gan):
    assert gan("train", *RECIPES["sound"], *SMALL, "hydra.run.dir=run")[0] == 0
    path = Path("run/samples/step_00000004.wav")
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 6 * 256)
    (heard,) = [event for event in events("run").Audio("samples/fixed_z/audio") if event.step == 4]
    assert heard.encoded_audio_string == path.read_bytes()
    assert heard.sample_rate == 8000
    assert load("run", packages=["other_models"]).sample(2).abs().max() <= 1


@pytest.mark.slow
def test_what_a_graph_writes_is_its_edges(gan):
    assert gan("train", *RECIPES["walks"], *SMALL, "hydra.run.dir=run")[0] == 0
    for line in Path("run/samples/step_00000004.edges").read_text().splitlines():
        assert all(0 <= int(node) < 34 for node in line.split())
    assert Image.open("run/samples/step_00000004.png").size == (600, 600)


@pytest.mark.slow
def test_a_generator_of_data_is_shown_beside_what_it_was_given_and_the_truth(gan):
    code, said = gan("train", *RECIPES["holes"], *SMALL, "callback.grid.n=3", "callback.grid.scale=1", "hydra.run.dir=run")
    assert code == 0
    assert "skill_rating will be null: it makes samples from latents alone, and this generator works on data" in said
    run = load("run", packages=["other_models"])
    truth = run.dataset.to_float(run.dataset.load("test").x[:3])
    side = truth.shape[2]
    tiles = np.asarray(Image.open("run/samples/step_00000004.png"))[..., 0]
    assert tiles.shape == (side + 4, 9 * (side + 2) + 2)
    given, made, real = (
        torch.stack([torch.from_numpy(tiles[2:-2, 2 + (3 * i + j) * (side + 2) :][:, :side].copy()) for i in range(3)]) / 127.5 - 1
        for j in range(3)
    )
    torch.testing.assert_close(real, truth[:, 0], rtol=0, atol=0.5 / 127.5)
    kept = given.abs() > 0.02  # what was masked is 0, grey
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(given[kept], real[kept], rtol=0, atol=1e-6)
    torch.testing.assert_close(made[kept], real[kept], rtol=0, atol=1e-6)
    assert not torch.equal(made, real)
    a, b = run.sample(4), run.sample(2)
    torch.testing.assert_close(a[:2], b)
    code, said = gan("sample", "run=run", "format=interpolation")
    assert code == 2
    assert "this generator works on data" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["architecture=flow", "dataset=ring8"], "the rule Alternate moves the discriminator, and the architecture has none"),
        (["architecture=flow", "dataset=ring8", "rule=solo"], "loss (NonSaturating) has a part for the discriminator"),
        (["dataset=ring8", "rule=solo"], "the discriminator has weights to train, and the rule Solo never moves it"),
        (["dataset=ring8", "rule=solo", "rule.player=discriminator"], "the generator has weights to train"),
        (["dataset=ring8", "loss=likelihood", "rule=solo"], "likelihood needs a generator that knows log_prob"),
        (
            ["architecture=flow", "dataset=ring8", "loss=likelihood", "rule=solo", "penalty=[r1]"],
            "r1 (R1) has a part for the discriminator",
        ),
        (["architecture=mlp_toy", "dataset=words"], "the data are symbols, and MLPGenerator makes numbers"),
        (["architecture=chars", "dataset=ring8"], "chars makes symbols, and the data are numbers of shape 2"),
        (["dataset=ring8", "rule=solo", "rule.player=critic"], "rule.player='critic': expected generator or discriminator"),
    ],
)
def test_what_cannot_be_played_is_one_line_and_leaves_nothing(gan, words, said):
    code, told = gan("train", *words, *SMALL)
    assert code == 2
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not list(Path().iterdir())
