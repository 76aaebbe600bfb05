"""1e5 and 64.0 are whole numbers where a part takes these alone, and a run typed either way is the same run."""

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from typing_extensions import TypedDict

from command_settings import defaults
from gan_runner.assembly.build import check, wrong_values
from gan_runner.assembly.parts import whole_numbers
from gan_runner.assembly.signatures import converted, mistyped, whole
from gan_runner.commands.settings import Sample, read
from gan_runner.config import composer
from gan_runner.errors import UserError
from gan_runner.schedules import Schedule


class Pair(TypedDict):
    n: int
    share: float


@pytest.mark.parametrize(
    ("annotation", "value", "made"),
    [
        (int, 1e5, 100000),
        (int, -2.0, -2),
        (int, 2.5, 2.5),
        (int, float("inf"), float("inf")),
        (Annotated[int, Ge(1)], 64.0, 64),
        (int | None, 64.0, 64),
        (Annotated[int, Ge(1)] | str | None, 64.0, 64),
        (float, 64.0, 64.0),
        (float | Schedule, 64.0, 64.0),
        (int | float, 64.0, 64.0),
        (Any, 64.0, 64.0),
        (str, 64.0, 64.0),
        (Literal[1, 2], 1.0, 1.0),
        (list[int], [1.0, 2, 3.5], [1, 2, 3.5]),
        (list[float], [1.0], [1.0]),
        (tuple[int, ...], [1.0, 2.0], [1, 2]),
        (tuple[int, float], [1.0, 2.0], [1, 2.0]),
        (list[tuple[int, float]], [[1.0, 2.0]], [[1, 2.0]]),
        (dict[str, int], {"a": 1.0}, {"a": 1}),
        (Pair, {"n": 1.0, "share": 1.0}, {"n": 1, "share": 1.0}),
        (int, True, True),
        (int, "5.0", "5.0"),
    ],
)
def test_a_whole_number_is_an_int_where_only_ints_are_taken(annotation, value, made):
    assert repr(whole(annotation, value)) == repr(made)


def test_a_tuple_of_whole_numbers():
    assert repr(converted(tuple[int, ...], [1.0, 2.0])) == "(1, 2)"


FLOATS = [
    "+experiment=gaussians25", "trainer.steps=2e1", "batch_size=16.0", "seed=1.0", "architecture.generator.width=1e1", "penalty=[r1]",
    "penalty.r1.every=2.0", "+optimizer.generator.eps=1.0", "callback.evaluate.n=2e2",
    "penalty.r1.weight={_target_:gan_runner.schedules.Linear,start:1.0,end:0.0,steps:1e1}",
]  # fmt: skip


@pytest.mark.slow
def test_the_saved_configuration_has_ints_where_they_are_taken_and_stays_what_it_was_elsewhere():
    typed = composer.compose(FLOATS).config
    ints = [word.replace("2e1", "20").replace("2e2", "200").replace("1e1", "10") for word in FLOATS]
    ints = [word if "weight" in word or "eps" in word else word.removesuffix(".0") for word in ints]
    meant, made = composer.compose(ints).config, whole_numbers(typed, [])
    assert made != typed or repr(made) != repr(typed)
    assert repr(made) == repr(meant)
    assert repr(made.optimizer.generator.eps) == "1.0"
    assert check(typed).trainer.steps == 20


@pytest.mark.slow
@pytest.mark.parametrize("word", ["trainer.steps=2.5", "batch_size=16.5", "seed=.5", "callback.evaluate.n=1e400"])
def test_a_number_that_is_not_whole_is_refused(word):
    with pytest.raises(UserError, match=f"{word.partition('=')[0]}=.*: expected a whole number"):
        check(composer.compose(["+experiment=gaussians25", word]).config)


def test_commands_take_them_as_well():
    settings = read(Sample, defaults(Sample) | {"run": "x", "n": 4.0, "seed": 1e0, "columns": 2.0})
    assert repr((settings.n, settings.seed, settings.columns)) == "(4, 1, 2)"


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (bool, "yes", "yes is a text on a command line: write true"),
        (bool | None, "Off", "Off is a text on a command line: write false"),
        (str, True, "a text of these letters needs quotes"),
        (str | None, False, "a text of these letters needs quotes"),
    ],
)
def test_words_that_yaml_reads_otherwise_are_explained(annotation, value, said):
    (message,) = mistyped("", {"key": annotation}, {"key": value})
    assert message.endswith(said)


@pytest.mark.parametrize(("annotation", "value"), [(bool, "perhaps"), (int, "yes"), (int, True), (str, 3)])
def test_other_words_are_not(annotation, value):
    (message,) = mistyped("", {"key": annotation}, {"key": value})
    assert "write" not in message
    assert "quotes" not in message


def test_a_missing_value_is_one_mistake_among_others():
    config = composer.compose(["+experiment=gaussians25", "trainer.steps=???", "seed=x"]).config
    assert wrong_values(config, []) == [
        "trainer.steps has no value yet: add trainer.steps=...",
        "seed='x': expected a whole number",
    ]
