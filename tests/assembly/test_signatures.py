"""What an annotation takes, in words, and which values do not fit it."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MultipleOf
from pydantic import AfterValidator, Field
from typing_extensions import Doc, TypedDict

from gan_runner.assembly.signatures import expected, mistyped

NESTED = "loss.x=[1, [2]]: expected a list, each a whole number, or a list, each a list, each a whole number"


class Best(TypedDict):
    metric: str | None
    mode: Literal["max", "min"]


class Schedule:
    pass


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (bool, "true or false"),
        (bool | None, "true, false or null"),
        (str | None, "a text or null"),
        (float | Schedule, "a number or a Schedule"),
        (dict[str, Any], "a mapping"),
        (list, "a list"),
        (list[Literal["a", "b"]], "a list, each a or b"),
        (tuple[int, ...], "a list, each a whole number"),
        (tuple[int, float], "[a whole number, a number]"),
        (Best, "{metric: a text or null, mode: max or min}"),
        (Literal["auto", 32, 16], "auto, 32 or 16"),
        (Callable[[int], str], "collections.abc.Callable[[int], str]"),
        (Annotated[int, Ge(1)], "a whole number, 1 or more"),
        (Annotated[int, Ge(1)] | None, "a whole number, 1 or more, or null"),
        (Annotated[float, Gt(0), Lt(1)], "a number, above 0, below 1"),
        (Annotated[int, Interval(ge=1, le=3)], "a whole number, 1 or more, at most 3"),
        (Annotated[int, Field(ge=1, le=3)], "a whole number, 1 or more, at most 3"),
        (Annotated[Literal["a", "b"], "a note"] | None, "a, b or null"),
        (Annotated[float, Le(1), Doc("a share")], "a share, at most 1"),
        (
            Annotated[str | Annotated[int, Ge(0)], Doc("the name or the number of a class")] | None,
            "the name or the number of a class or null",
        ),
    ],
)
def test_words(annotation, words):
    assert expected(annotation) == words


def even(number: int) -> int:
    if number % 2:
        raise ValueError("the number has to be even")
    return number


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, 3, []),
        (int, "3", ["loss.x='3': expected a whole number"]),
        (int, True, ["loss.x=True: expected a whole number"]),
        (int, 1.5, ["loss.x=1.5: expected a whole number"]),
        (float, 3, []),
        (Annotated[float, Gt(0)], float("nan"), ["loss.x=nan: expected a number, above 0"]),
        (tuple[int, ...], [1, 2], []),
        (int | tuple[int, ...] | Annotated[tuple[tuple[int, ...], ...], Doc("groups")], [[1, 2], [3]], []),
        (tuple[int, ...] | tuple[tuple[int, ...], ...], [1, [2]], [NESTED]),
        (Literal["as it is"] | tuple[int, ...], [1, 2], []),
        (list[tuple[int, int]], [[1, 2], [3, 4]], []),
        (tuple[list[int], ...], [[1, 2], [3, 4]], []),
        (tuple[int, ...], [1, "a"], ["loss.x=[1, 'a']: expected a list, each a whole number"]),
        (Annotated[int, Ge(1), MultipleOf(3)], 4, ["loss.x=4: expected a whole number, 1 or more; input should be a multiple of 3"]),
        (Annotated[float, Field(allow_inf_nan=False)], float("inf"), ["loss.x=inf: expected a number; input should be a finite number"]),
        (Literal["a", "b"] | None, "c", ["loss.x='c': expected a, b or null"]),
        (Schedule | float, "c", ["loss.x='c': expected a Schedule or a number"]),
        (Best, {"metric": 3, "mode": "max"}, ["loss.x={'metric': 3, 'mode': 'max'}: expected {metric: a text or null, mode: max or min}"]),
        (Annotated[int, AfterValidator(even)], 3, ["loss.x=3: expected a whole number; the number has to be even"]),
        (Annotated[int, AfterValidator(even)], "3", ["loss.x='3': expected a whole number"]),
    ],
)
def test_values_that_do_not_fit_are_reported(annotation, value, said):
    assert list(mistyped("loss", {"x": annotation}, {"x": value})) == said


def test_every_value_is_checked_and_a_key_at_the_top_has_no_dot():
    assert list(mistyped("", {"n": int, "m": int}, {"n": "a", "m": "b"})) == [
        "n='a': expected a whole number",
        "m='b': expected a whole number",
    ]
