"""MS-SSIM against its definition, written out window by window."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from gan_runner.datasets import Spec
from gan_runner.errors import UserError
from gan_runner.metrics.diversity import MSSSIM, WEIGHTS, ms_ssim, random_pairs, scales_of


def noise(n, *shape, seed=0):
    return torch.rand(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def halved(image):
    """2x2 means of H W; at an odd edge, of what there is."""
    height, width = image.shape
    return torch.stack(
        [torch.stack([image[i : i + 2, j : j + 2].mean() for j in range(0, width, 2)]) for i in range(0, height, 2)],
    )


def slowly(a, b, scales):
    """Of two images C H W."""
    weight = torch.tensor([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)], dtype=torch.float64)
    weight /= weight.sum()
    product = 1.0
    for scale in range(scales):
        values = []
        for x, y in zip(a, b):
            for i in range(x.shape[0] - 10):
                for j in range(x.shape[1] - 10):
                    u, v = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                    mu, mv = (weight * u).sum(), (weight * v).sum()
                    covariance = (weight * (u - mu) * (v - mv)).sum()
                    variances = (weight * (u - mu) ** 2).sum() + (weight * (v - mv) ** 2).sum()
                    value = (2 * covariance + 9e-4) / (variances + 9e-4)
                    if scale == scales - 1:
                        value *= (2 * mu * mv + 1e-4) / (mu**2 + mv**2 + 1e-4)
                    values.append(value.item())
        product *= max(0.0, sum(values) / len(values)) ** (WEIGHTS[scale] / sum(WEIGHTS[:scales]))
        a, b = (torch.stack([halved(channel) for channel in image]) for image in (a, b))
    return product


@pytest.mark.parametrize("shape", [(1, 11, 14), (3, 16, 12), (1, 23, 21), (2, 24, 26), (1, 41, 41)])
def test_ms_ssim_is_its_definition(shape):
    a, other = noise(2, *shape), noise(2, *shape, seed=1)
    b = 0.7 * a + 0.3 * other
    want = [slowly(x, y, scales_of(*shape[1:])) for x, y in zip(a, b)]
    assert 0.1 < min(want) < max(want) < 0.99
    assert ms_ssim(a, b).tolist() == pytest.approx(want, rel=1e-9)


def test_one_scale_is_the_ssim_of_the_windows_inside_the_image():
    """torchmetrics knows windows beyond the edge as well; its map without them is the same."""
    a, b = noise(4, 3, 20, 17), noise(4, 3, 20, 17, seed=1)
    _, values = structural_similarity_index_measure(a, (a + b) / 2, data_range=1.0, return_full_image=True)
    want = values[..., 5:-5, 5:-5].flatten(1).mean(1)
    assert torch.allclose(ms_ssim(a, (a + b) / 2), want, rtol=1e-6, atol=0)


def test_as_many_scales_as_the_window_fits():
    sides = {10: 0, 11: 1, 20: 1, 21: 2, 28: 2, 32: 2, 40: 2, 41: 3, 64: 3, 80: 3, 81: 4, 128: 4, 160: 4, 161: 5, 1024: 5}
    assert {side: scales_of(side, 2 * side) for side in sides} == sides
    assert scales_of(2048, 28) == 2
    a, b = noise(1, 1, 161, 161), noise(1, 1, 161, 161, seed=1)
    assert 0 <= ms_ssim(a, 0.5 * (a + b)).item() < 1
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ms_ssim(noise(1, 1, 10, 30), noise(1, 1, 10, 30))
    with pytest.raises(ValueError):
        ms_ssim(noise(1, 1, 30, 30), noise(1, 3, 30, 30))


@pytest.mark.parametrize("side", [16, 64, 161])
def test_images_that_are_the_same_score_one(side):
    a = torch.cat([noise(1, 3, side, side), torch.ones(1, 3, side, side), torch.zeros(1, 3, side, side)])
    assert ms_ssim(a, a).tolist() == pytest.approx([1.0] * 3, abs=1e-12)


def test_uniform_images_differ_in_luminance_alone():
    """At the coarsest of 3 scales, to the power of its share of the weights."""
    luminance = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    got = ms_ssim(torch.full((1, 1, 64, 64), 0.2), torch.full((1, 1, 64, 64), 0.8))
    assert got.item() == pytest.approx(luminance ** (0.3001 / (0.0448 + 0.2856 + 0.3001)), rel=1e-6)


def test_independent_noise_scores_near_zero_and_a_negative_never_below():
    a, b = noise(64, 1, 64, 64), noise(64, 1, 64, 64, seed=1)
    assert ms_ssim(a, b).mean() < 0.05
    assert (ms_ssim(a, 1 - a) == 0).all()


# ---- pairs ----------------------------------------------------------------------------------------------------------------------------


def test_pairs_are_uniform_over_the_others_of_a_label():
    labels = torch.tensor([2, 0, 2, 7, 0, 2])
    first, second = random_pairs(6, 60_000, torch.Generator().manual_seed(0), labels)
    counts = torch.bincount(6 * first + second, minlength=36).view(6, 6) / 60_000
    want = torch.zeros(6, 6)
    for i in (0, 2, 5):
        for j in (0, 2, 5):
            want[i, j] = (i != j) / 10
    want[1, 4] = want[4, 1] = 1 / 5  # 7 has no partner: five samples are drawn, each with its partners
    assert torch.allclose(counts, want, atol=4 * math.sqrt(0.2 * 0.8 / 60_000))
    assert (counts[want == 0] == 0).all()


def test_pairs_without_labels_are_uniform():
    first, second = random_pairs(4, 60_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(4 * first + second, minlength=16).view(4, 4) / 60_000
    assert torch.allclose(counts, (1 - torch.eye(4)) / 12, atol=4 * math.sqrt(1 / 12 * 11 / 12 / 60_000))


def test_pairs_need_two_samples_of_a_label():
    with pytest.raises(ValueError, match="no two samples of one label"):
        random_pairs(3, 5, torch.Generator(), torch.arange(3))
    with pytest.raises(ValueError, match=r"no two samples$"):
        random_pairs(1, 5, torch.Generator())


# ---- the metric -----------------------------------------------------------------------------------------------------------------------


def subject(x, y=None, seed=0):
    """Images in [0, 1], of which each index gives one."""

    def at(indices):
        return 2 * x[indices].float() - 1, None if y is None else y[indices]

    def batches(rows, batch_size):
        for part in torch.arange(rows.start, rows.stop).split(batch_size):
            yield at(part)

    return SimpleNamespace(n=len(x), spec=Spec(tuple(x.shape[1:])), seed=seed, labelled=y is not None, at=at, batches=batches)


def figures(made, real=None, pairs=200, chunk=None):
    real = made if real is None else real
    metric = MSSSIM(made.spec, pairs=pairs)
    metric.chunk = chunk or metric.chunk
    labels = real.batches(range(real.n), real.n).__next__()[1]
    metric.reference = SimpleNamespace(n=real.n, labels=labels, at=lambda indices: real.at(indices)[0])
    metric.update()
    metric.examine(made)
    return {key: value.item() for key, value in metric.figures(None).items()}


def test_fakes_that_are_all_the_same_score_one_beside_their_baseline():
    x = noise(30, 1, 24, 24)
    got = figures(subject(x[:1].expand(30, -1, -1, -1)), subject(x))
    assert got == {"ms_ssim": pytest.approx(1), "ms_ssim/real": pytest.approx(0, abs=0.1), "ms_ssim/scales": 2}


def test_pairs_are_of_one_class_where_there_are_labels():
    y = torch.arange(30) % 3
    x = noise(3, 1, 24, 24)[y]  # one image for each class
    got = figures(subject(x, y))
    assert (got["ms_ssim"], got["ms_ssim/real"]) == (pytest.approx(1), pytest.approx(1))
    assert figures(subject(x))["ms_ssim"] < 0.6  # some 9 in 29 pairs are the same image
    assert figures(subject(x, y), subject(x))["ms_ssim"] < 0.6  # the figures would not compare


def test_figures_depend_on_the_seed_alone_and_draw_nothing_from_torch():
    x = noise(50, 3, 24, 24)
    state = torch.get_rng_state()
    want = figures(subject(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert figures(subject(x), chunk=7) == pytest.approx(want, rel=1e-12)
    assert figures(subject(x, seed=1))["ms_ssim"] != want["ms_ssim"]


def test_the_mean_is_that_of_all_pairs():
    x = (noise(12, 1, 8, 8) > 0.5).double().repeat_interleave(3, 2).repeat_interleave(3, 3)
    every = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    every = every[every[:, 0] != every[:, 1]]
    values = ms_ssim(x[every[:, 0]], x[every[:, 1]])
    got = figures(subject(x), pairs=1500)
    for key in ("ms_ssim", "ms_ssim/real"):
        assert got[key] == pytest.approx(values.mean().item(), abs=4 * values.std().item() / math.sqrt(1500))
    assert values.mean() > 0.05


def test_data_without_pairs_of_images_are_refused():
    for spec in (Spec((2,)), Spec((1, 10, 28))):
        with pytest.raises(ValueError, match="at least 11 x 11"):
            MSSSIM(spec)
    with pytest.raises(UserError, match="of fake samples: there are no two samples"):
        figures(subject(noise(1, 1, 24, 24)))
