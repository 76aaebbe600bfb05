"""Schedules at their ends and in the middle."""

import pytest

from gan_runner.schedules import Constant, Cosine, Exponential, InverseSquareRoot, Linear, Step, Warmup, schedule


@pytest.mark.parametrize(("kind", "middle"), [(Linear, 6.0), (Cosine, 6.0), (Exponential, 20**0.5)])
def test_ends_and_middle(kind, middle):
    followed, fixed = kind(10, 2), kind(10, 2, steps=50)
    assert [followed.at(step, 100) for step in (0, 50, 100, 200)] == pytest.approx([10, middle, 2, 2])
    assert [fixed.at(step, 100) for step in (0, 25, 50, 99)] == pytest.approx([10, middle, 2, 2])
    assert followed.follows_run
    assert not fixed.follows_run


def test_cosine_is_flat_at_its_ends():
    cosine = Cosine(1, 0)
    assert 1 - cosine.at(1, 100) < 3e-4
    assert cosine.at(25, 100) == pytest.approx(0.8535534)


def test_hold_waits_before_it_goes():
    linear = Linear(8, 0, hold=0.5)
    assert [linear.at(step, 100) for step in (0, 50, 75, 100)] == pytest.approx([8, 8, 4, 0])


def test_steps_are_taken_at_their_rounds():
    step = Step(8, at=[10, 30], factor=0.5)
    assert [step.at(n, 100) for n in (0, 9, 10, 29, 30, 99)] == [8, 8, 4, 4, 2, 2]
    assert not step.follows_run


def test_the_learning_rate_of_edm2():
    """NVlabs/edm2, learning_rate_schedule, whose images are n times the batch: 70,000 reference batches of 2048, a rise over 10M images."""
    batch, rate = 2048, Warmup(steps=4882, then=InverseSquareRoot(0.01, after=70_000))
    for n in (0, 1, 2441, 4882, 70_000, 70_001, 280_000, 4_000_000):
        images, expected = n * batch, 0.01
        expected /= max(images / (70e3 * batch), 1) ** 0.5
        expected *= min(images / (4882 * batch), 1)
        assert rate.at(n, 1) == pytest.approx(expected, rel=1e-12)
    assert [rate.at(n, 1) for n in (0, 2441, 4882, 280_000)] == pytest.approx([0, 0.005, 0.01, 0.005])


def test_a_warmup_rises_before_a_number_and_before_a_schedule_of_the_run():
    assert [Warmup(4, 2.0).at(n, 100) for n in (0, 1, 2, 4, 50)] == [0, 0.5, 1, 2, 2]
    over_all = Warmup(10, Linear(1.0, 0.0))
    assert [over_all.at(n, 100) for n in (5, 10, 60)] == pytest.approx([0.5 * 0.95, 0.9, 0.4])
    assert over_all.follows_run
    assert not Warmup(10, Linear(1.0, 0.0, steps=20)).follows_run


def test_a_number_is_a_constant_schedule():
    constant = schedule(3)
    assert constant.at(0, 1) == constant.at(99, 100) == 3
    assert constant.value.item() == 3
    assert schedule(constant) is constant
    assert isinstance(constant, Constant)


@pytest.mark.parametrize("make", [lambda: Exponential(0, 1), lambda: Linear(0, 1, hold=1.0), lambda: Linear(0, 1, hold=-0.1)])
def test_nonsense_is_refused(make):
    with pytest.raises(ValueError):
        make()
