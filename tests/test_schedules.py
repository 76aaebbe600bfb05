"""Schedules at their ends and in the middle."""

import pytest

from gan_runner.schedules import Constant, Cosine, Exponential, Linear, schedule


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
