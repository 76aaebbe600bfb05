"""DINOv2, CLIP and ConvNeXt: they are the library's networks, behind the library's way of preparing images."""

import hashlib
import io
import re
import sys
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from gan_runner.errors import UserError
from gan_runner.extractors import Clip, ConvNeXt, Dinov2, downloads
from gan_runner.extractors.clip import to_timm
from gan_runner.extractors.dinov2 import positions
from gan_runner.extractors.downloads import Remote
from gan_runner.extractors.pillow import pillow_matrix, pillow_resize

timm = pytest.importorskip("timm")

SMALL = {
    "dinov2_vits14": (Dinov2, "vits14", "vit_small_patch14_dinov2", {"img_size": 224, "num_classes": 0}),
    "clip_vitb32": (Clip, "vitb32", "vit_base_patch32_clip_quickgelu_224", {"num_classes": 512}),
    "convnext_atto_d2_in1k": (ConvNeXt, "convnext_atto.d2_in1k", "convnext_atto.d2_in1k", {}),
}
FEATURES = {"dinov2_vits14": 384, "clip_vitb32": 512, "convnext_atto_d2_in1k": 320}
SIZES = (32, 224, 300)


def images(n, *size, seed=0):
    return torch.randint(256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def plausible(state):
    """Random weights of these shapes that keep the size of activations, no two alike."""
    generator = torch.Generator().manual_seed(1)

    def draw(key, value):
        if value.ndim > 1:
            return torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        return torch.randn(value.shape, generator=generator) * 0.1 + key.endswith("weight") + 0.3 * key.endswith("gamma")

    return {key: draw(key, value) for key, value in state.items()}


@pytest.fixture(scope="module", params=SMALL)
def pair(request, tmp_path_factory):
    """An extractor with random weights from a file, and the library's own network with the same ones."""
    cls, model, name, choices = SMALL[request.param]
    net = timm.create_model(name, **choices).eval()
    net.load_state_dict(plausible(net.state_dict()))
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    safetensors.torch.save_file(net.state_dict(), path)
    return cls(model=model, weights=str(path)), net, path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of checkpoints, still missing, and no memory of downloads that failed."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(downloads, "_failed", {})
    return tmp_path / "hub" / "checkpoints"


def centre_square(image, side):
    """What the programs for CMMD do to a file."""
    height, width = image.shape[1:]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    cropped = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((left, top, left + square, top + square))
    return torch.from_numpy(np.array(cropped.resize((side, side), Image.Resampling.BICUBIC))).permute(2, 0, 1).float()


def prepared(net, name, x):
    """What the library makes of images, one by one as Pillow's; CMMD's program for CLIP."""
    if name.startswith("clip"):
        mean, std = (torch.tensor(timm.data.OPENAI_CLIP_MEAN), torch.tensor(timm.data.OPENAI_CLIP_STD))
        resized = torch.stack([centre_square(image, net.patch_embed.img_size[0]) for image in x])
        return (resized / 255 - mean[:, None, None]) / std[:, None, None]
    choices = timm.data.resolve_model_data_config(net)
    if name.startswith("dinov2"):
        assert choices["crop_pct"] == 1
        choices["input_size"] = (3, 224, 224)
    transform = timm.data.create_transform(**choices, is_training=False)
    return torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in x])


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_the_library(pair, size):
    extractor, net, _ = pair
    x = images(3, size, size)
    with torch.no_grad():
        seen = prepared(net, extractor.name, x)
        want = net.forward_head(net.forward_features(seen), pre_logits=True) if extractor.name.startswith("convnext") else net(seen)
    if extractor.name.startswith("clip"):
        want = want / want.norm(dim=1, keepdim=True)
    got = extractor(x)
    assert got.logits is None
    assert got.features.shape == (3, FEATURES[extractor.name]) == (3, extractor.features)
    assert (got.features - want).abs().max() <= 1e-5 * want.abs().max()
    assert got.features.std(0).mean() > 1e-3 * got.features.std()  # the images do not all look alike


@pytest.mark.slow
def test_it_is_a_frozen_function_of_images_that_draws_nothing(pair):
    extractor, _, path = pair
    assert extractor.available() is None
    assert extractor.name in SMALL
    assert extractor.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    before = torch.get_rng_state()
    cls, model, *_ = SMALL[extractor.name]
    cls(model=model)
    x = images(3, 30, 40)
    whole = extractor(x).features
    assert torch.equal(torch.get_rng_state(), before)
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    parts = torch.cat([extractor(part).features for part in x.split(2)])
    assert (whole - parts).norm() <= 1e-5 * whole.norm()
    grey = x[:, :1]
    assert torch.allclose(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features, rtol=1e-4, atol=1e-5)
    for wrong, error in ((x.float(), TypeError), (x[:, :2], ValueError), (x[0], ValueError)):
        with pytest.raises(error, match=f"^extractor {extractor.name} takes images"):
            extractor(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (240, 300)])
def test_gradients_flow_to_samples_and_agree_with_finite_differences(pair, size):
    extractor = pair[0]
    x = (images(2, *size) / 127.5 - 1) * 0.5
    x.requires_grad_()
    direction = torch.randn(2, extractor.features, generator=torch.Generator().manual_seed(3))
    (slope,) = torch.autograd.grad((extractor.extract(x).features * direction).sum(), x)
    assert slope.isfinite().all()
    assert (slope.flatten(1).norm(dim=1) > 0).all()
    step = slope / slope.norm() * 1e-2
    with torch.no_grad():
        up, down = ((extractor.extract(x + sign * step).features.double() * direction).sum() for sign in (1, -1))
    assert (up - down).item() == pytest.approx(2 * (slope * step).sum().item(), rel=0.05)


@pytest.mark.slow
def test_samples_look_nearly_like_the_bytes_they_are_stored_as(pair):
    extractor = pair[0]
    x = images(2, 32, 32)
    with torch.no_grad():
        seen = extractor.extract(x / 127.5 - 1).features
    assert (seen - extractor(x).features).norm() <= 0.05 * seen.norm()  # but for the rounding of resized images


@pytest.mark.slow
def test_weights_of_another_network_are_refused(pair, tmp_path):
    extractor, net, _ = pair
    cls, model, *_ = SMALL[extractor.name]
    state = dict(net.state_dict())
    state["foreign"] = torch.zeros(1)
    for name, content in (("foreign.safetensors", state), ("missing.pth", dict(list(net.state_dict().items())[2:]))):
        path = tmp_path / name
        safetensors.torch.save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
        assert f"{path} does not hold the weights of {extractor.name}" in cls(model=model, weights=str(path)).available()
    (tmp_path / "cut.safetensors").write_bytes(pair[2].read_bytes()[:5000])
    assert "cut.safetensors does not hold" in cls(model=model, weights=str(tmp_path / "cut.safetensors")).available()


def test_without_the_library_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for cls in (Dinov2, Clip, ConvNeXt):
        with pytest.raises(UserError, match=r"^this extractor needs timm, which is not installed: pip install timm$"):
            cls()


# ---- files of others ----------------------------------------------------------------------------------------------------------------


def test_position_embeddings_are_interpolated_as_published():
    """By hand: cubic, a = -0.75, no antialiasing, pixel i of the result at (i + 1/2) 37 / 16.1 - 1/2, edges repeated."""
    before, side = 37, 16
    table = torch.randn(1, 1 + before**2, 3, generator=torch.Generator().manual_seed(0))
    a, matrix = -0.75, np.zeros((side, before))
    for i in range(side):
        place = (i + 0.5) * before / (side + 0.1) - 0.5
        for k in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - k)
            weight = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[i, min(max(k, 0), before - 1)] += weight
    square = table[0, 1:].reshape(before, before, 3).double().numpy()
    want = np.einsum("ia,jb,abf->ijf", matrix, matrix, square).reshape(-1, 3)
    got = positions(table, side)
    assert torch.equal(got[:, :1], table[:, :1])
    assert np.abs(got[0, 1:].numpy() - want).max() < 1e-5
    assert positions(got, side) is got


@pytest.mark.slow
def test_dinov2_reads_the_published_form(tmp_path):
    """518 pixels, and a token that only training used."""
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=0).eval()
    state = plausible(net.state_dict())
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    torch.save({"mask_token": torch.zeros(1, 384)} | state, tmp_path / "published.pth")
    extractor = Dinov2("vits14", weights=str(tmp_path / "published.pth"))
    x = images(2, 64, 64)
    small = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    small.load_state_dict(state | {"pos_embed": positions(state["pos_embed"], 16)})
    with torch.no_grad():
        want = small(prepared(small, "dinov2", x))
    assert (extractor(x).features - want).abs().max() <= 1e-5 * want.abs().max()


def test_dinov2_is_the_network_of_another_library(tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5")
    config = transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=224, patch_size=14)
    theirs = transformers.Dinov2Model(config).eval()
    theirs.load_state_dict(plausible(theirs.state_dict()))
    state = {}
    for key, value in theirs.state_dict().items():
        for old, new in (
            ("embeddings.cls_token", "cls_token"), ("embeddings.position_embeddings", "pos_embed"), ("layernorm.", "norm."),
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"), ("encoder.layer.", "blocks."),
            ("attention.o_proj", "attn.proj"),
            ("layer_scale1.lambda1", "ls1.gamma"), ("layer_scale2.lambda1", "ls2.gamma"), ("embeddings.mask_token", "mask_token"),
        ):  # fmt: skip
            key = key.replace(old, new)
        state[key] = value
    for key in [key for key in state if ".attention.q_proj." in key]:
        parts = [state.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        state[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    torch.save(state, tmp_path / "weights.pth")
    extractor, x = Dinov2("vits14", weights=str(tmp_path / "weights.pth")), images(2, 224, 224)
    with torch.no_grad():
        want = theirs(extractor.normalised(x.float())).last_hidden_state[:, 0]
    assert (extractor(x).features - want).abs().max() <= 1e-5 * want.abs().max()


def published_clip(width=768, layers=12, patch=32, side=224, projected=512):
    """Names and shapes of the image network in a file of transformers' CLIPModel, and some of the text network."""
    layer = {f"self_attn.{one}_proj.weight": (width, width) for one in ("q", "k", "v", "out")}
    layer |= {f"self_attn.{one}_proj.bias": (width,) for one in ("q", "k", "v", "out")}
    layer |= {f"layer_norm{i}.{kind}": (width,) for i in (1, 2) for kind in ("weight", "bias")}
    layer |= {
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    shapes = {f"encoder.layers.{i}.{key}": shape for i in range(layers) for key, shape in layer.items()}
    shapes |= {f"{norm}.{kind}": (width,) for norm in ("pre_layrnorm", "post_layernorm") for kind in ("weight", "bias")}
    shapes |= {"embeddings.class_embedding": (width,), "embeddings.patch_embedding.weight": (width, 3, patch, patch)}
    shapes |= {"embeddings.position_embedding.weight": ((side // patch) ** 2 + 1, width)}
    state = plausible({f"vision_model.{key}": torch.empty(shape) for key, shape in shapes.items()})
    state |= plausible({"visual_projection.weight": torch.empty(projected, width), "text_projection.weight": torch.empty(projected, 4)})
    state["vision_model.embeddings.position_ids"] = torch.arange(50)[None]
    return state | {"text_model.embeddings.position_embedding.weight": torch.zeros(2, 2), "logit_scale": torch.tensor(1.0)}


@pytest.mark.slow
def test_clip_reads_the_published_form():
    state = to_timm(published_clip())
    net = timm.create_model("vit_base_patch32_clip_quickgelu_224", num_classes=512)
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in net.state_dict().items()}


def test_clip_is_the_network_of_another_library(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(patch_size=32, image_size=224, projection_dim=512)
    theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    state = published_clip()
    assert not theirs.load_state_dict(state, strict=False).missing_keys
    torch.save(state, tmp_path / "pytorch_model.bin")
    extractor, x = Clip("vitb32", "bicubic", weights=str(tmp_path / "pytorch_model.bin")), images(2, 32, 32)
    with torch.no_grad():
        seen = extractor.normalised(F.interpolate(x / 255, size=(224, 224), mode="bicubic") * 255)
        want = theirs(seen).image_embeds
    want = want / want.norm(dim=1, keepdim=True)
    assert (extractor(x).features - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["clip_vitb32"], indirect=True)
def test_clip_sees_the_square_in_the_centre_or_the_whole_image(pair):
    extractor, net, path = pair
    x, whole = images(2, 60, 91), Clip("vitb32", "bicubic", weights=str(path))
    square = torch.stack([centre_square(image, 224) for image in x])
    with torch.no_grad():
        for each, seen in ((extractor, square), (whole, F.interpolate(x.float(), (224, 224), mode="bicubic"))):
            want = F.normalize(net(each.normalised(seen)), dim=1)
            assert (each(x).features - want).abs().max() <= 1e-5 * want.abs().max()
    assert (extractor.name, whole.name) == ("clip_vitb32", "clip_vitb32_bicubic")
    assert extractor.preprocessing.startswith("resize centre square, pillow-bicubic antialiased 224 rounded, (x/255-[0.4814")
    assert whole.preprocessing.startswith("resize bicubic 224 without antialiasing, (x/255-[0.4814")


@pytest.mark.slow
def test_convnext_reads_the_published_form(tmp_path):
    """The authors number their layers otherwise, and keep their weights below a name."""
    net = timm.create_model("convnext_tiny.fb_in22k", num_classes=0).eval()
    state = plausible(net.state_dict())
    theirs = {}
    for key, value in state.items():
        key = key.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.").replace("blocks.", "")
        key = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key)
        theirs[key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = value
    theirs |= {"head.weight": torch.zeros(21841, 768), "head.bias": torch.zeros(21841)}
    torch.save({"model": theirs}, tmp_path / "published.pth")
    extractor, x = ConvNeXt("convnext_tiny.fb_in22k", weights=str(tmp_path / "published.pth")), images(1, 40, 60)
    net.load_state_dict(state)
    with torch.no_grad():
        want = net(prepared(net, "convnext", x))
    assert extractor.name == "convnext_tiny_fb_in22k"
    assert (extractor(x).features - want).abs().max() <= 1e-5 * want.abs().max()


def test_models_that_are_not_there_are_refused():
    with pytest.raises(UserError, match=r"^timm has no ConvNeXt convnext_smal \(did you mean convnext_small\?\)$"):
        ConvNeXt("convnext_smal")


# ---- resizing -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (300, 300), (17, 40), (1, 1), (301, 3), (333, 777)])
@pytest.mark.parametrize("to", [(224, 224), (256, 341), (7, 5)])
def test_bytes_are_resized_as_pillow_does_it_bit_for_bit(size, to):
    x = images(1, *size)
    x = torch.where(x > 127, 255, 0).byte() if sum(size) % 2 else x  # of such images the cubic overshoots
    want = np.asarray(Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize(to[::-1], Image.Resampling.BICUBIC))
    assert np.array_equal(pillow_resize(x, *to)[0].permute(1, 2, 0).numpy(), want)
    smooth = pillow_resize(x.float(), *to)[0].permute(1, 2, 0).numpy()
    assert np.abs(smooth - want).max() < 1.2  # a half for each direction, and what the second makes of the first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bytes_are_resized_on_cuda_as_on_the_cpu():
    for size in SIZES:
        x = images(2, size, size)
        assert torch.equal(pillow_resize(x.cuda(), 224, 224).cpu(), pillow_resize(x, 224, 224))


def test_weights_of_resizing_add_up_to_1():
    for inputs, outputs in ((32, 224), (300, 224), (3, 100), (1000, 7)):
        matrix = pillow_matrix(inputs, outputs)
        assert (matrix.sum(1) - 1).abs().max() < 1e-5
        assert torch.equal(matrix * 2**22, (matrix * 2**22).round())


# ---- weights that are fetched -------------------------------------------------------------------------------------------------------


class Answer(io.BytesIO):
    def __init__(self, content, length=None):
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


def serve(monkeypatch, *answers):
    asked, left = [], list(answers)

    def urlopen(url, timeout):
        asked.append(url)
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(downloads, "urlopen", urlopen)
    return asked


def test_where_the_published_files_are():
    assert Dinov2().published == Remote(
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        1_217_586_395,
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    )
    assert Clip().published.url.startswith("https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/ce19dc91")
    large = ConvNeXt()
    assert (large.name, large.features) == ("convnext_large_fb_in22k", 1536)
    assert large.published == Remote("https://dl.fbaipublicfiles.com/convnext/convnext_large_22k_224.pth", None, None)
    assert large.preprocessing == (
        "resize pillow-bicubic antialiased shorter side 256 rounded, centre 224, (x/255-[0.485, 0.456, 0.406])/[0.229, 0.224, 0.225]"
    )


@pytest.fixture
def atto():
    """A published file of random weights, as bytes."""
    net = timm.create_model("convnext_atto.d2_in1k")
    return safetensors.torch.save(plausible(net.state_dict()))


def test_a_file_without_a_published_checksum_is_fetched_once_and_its_checksum_recorded(hub, monkeypatch, atto):
    asked = serve(monkeypatch, Answer(atto, len(atto)))
    extractor = ConvNeXt("convnext_atto.d2_in1k")
    extractor.file = extractor.file.rpartition(".")[0] + ".safetensors"
    assert extractor(images(1, 32, 32)).features.isfinite().all()
    assert extractor.checksum == hashlib.sha256(atto).hexdigest()
    assert extractor.find() == hub / extractor.file
    assert asked == [extractor.published.url]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (URLError(OSError("Name or service not known")), "Name or service not known"),
        (Answer(b"x" * 100), "the server does not say how large the file is"),
        (Answer(b"x" * 100, 200), "what came is another file: 100 bytes"),
    ],
)
def test_a_download_that_fails_is_a_reason_and_leaves_nothing(answer, said, hub, monkeypatch):
    serve(monkeypatch, answer)
    reason = ConvNeXt("convnext_atto.d2_in1k").available()
    assert reason.startswith("extractor convnext_atto_d2_in1k needs its weights, and there is no file ")
    assert said in reason
    assert "no published checksum): put that file there, or name its path by extractor.weights=PATH" in reason
    assert not hub.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["dinov2_vits14"], indirect=True)
def test_another_file_than_the_published_one_is_refused_unless_it_is_named(hub, monkeypatch, pair):
    path = pair[2]
    asked = serve(monkeypatch, Answer(path.read_bytes(), path.stat().st_size))
    fetched = Dinov2("vits14")
    assert "it could not be downloaded (what came is another file" in fetched.available()
    assert asked == [fetched.published.url]
    hub.mkdir(parents=True)
    torch.save(safetensors.torch.load_file(path), hub / fetched.file)
    digits = hashlib.sha256((hub / fetched.file).read_bytes()).hexdigest()
    assert f"is not the published file of extractor dinov2_vits14: its SHA-256 is {digits} and should be b938bf1b" in fetched.available()
    named = Dinov2("vits14", weights=str(hub / fetched.file))
    assert named.available() is None
    assert "downloading is off" in Clip("vitb32", download=False).available()


def test_a_bar_is_shown_on_a_terminal_only(hub, monkeypatch, capsys):
    content = b"x" * 3_000_000
    for terminal in (False, True):
        monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
        serve(monkeypatch, Answer(content))
        assert downloads.download(Remote("https://x/y", len(content), None), hub / f"weights{terminal}.pth") is None
        out, err = capsys.readouterr()
        assert out == ""
        assert ("weightsTrue.pth" in err) == terminal


# ---- the real shapes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name", "choices"),
    [
        (Dinov2, "vit_large_patch14_dinov2", {"img_size": 224, "num_classes": 0}),
        (Clip, "vit_large_patch14_clip_quickgelu_336", {"num_classes": 768}),
    ],
    ids=["dinov2", "clip"],
)
def test_the_large_networks_are_those_of_the_library(make, name, choices):
    with torch.device("meta"):
        net = timm.create_model(name, **choices)
    generator = torch.Generator().manual_seed(0)
    net = net.to_empty(device="cpu").eval()
    with torch.no_grad():
        for key, value in net.state_dict().items():
            value.normal_(0, value[0].numel() ** -0.5 if value.ndim > 1 else 0.1, generator=generator)
            if key.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gamma")):
                value.add_(0.5)
    extractor = make()
    extractor.net.load_state_dict(net.state_dict(), assign=True)
    extractor.loaded = True
    x = images(1, 64, 64)
    with torch.no_grad():
        want = net(prepared(net, extractor.name, x))
    got = extractor(x).features
    if make is Clip:
        want = want / want.norm(dim=1, keepdim=True)
    assert got.shape == (1, extractor.features)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
