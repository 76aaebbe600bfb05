"""The one schema of parts and commands: the annotated parameters of a constructor. Imports no torch."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Literal, Union

import pydantic
from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from omegaconf import MISSING
from pydantic.fields import FieldInfo
from typing_extensions import Doc, is_typeddict

from gan_runner.errors import did_you_mean, with_article

GIVEN = frozenset({"self", "spec", "params", "own_packages"})  # what the build supplies itself
NOUNS = {int: "a whole number", float: "a number", str: "a text", dict: "a mapping", list: "a list", tuple: "a list"}
# ends of the names of those errors of pydantic that `expected` has words for
IN_WORDS = (
    "_type",
    "is_instance_of",
    "literal_error",
    "int_from_float",
    "greater_than",
    "less_than",
    "greater_than_equal",
    "less_than_equal",
)


def signature(cls: type) -> dict[str, tuple[Any, Any]]:
    """Return name -> (annotation, default) of the constructor's parameters that a configuration gives; `...` where there is no default."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    return {
        name: (hints.get(name, Any), ... if p.default is p.empty else p.default)
        for name, p in inspect.signature(cls.__init__).parameters.items()  # type: ignore[misc]
        if name not in GIVEN and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def converted(annotation: Any, value: Any) -> Any:
    """Return a value of a YAML file as the annotation asks for it: a list as a tuple, 1e5 as a whole number; any other as it is."""
    return tupled(annotation, whole(annotation, value))


def tupled(annotation: Any, value: Any) -> Any:
    """Return lists as tuples where the annotation asks for them, also inside other lists."""
    kinds = [kind for kind in _kinds(annotation) if typing.get_origin(kind) in (tuple, list)]
    if not isinstance(value, list) or not kinds:
        return value
    below = [one for kind in kinds for one in typing.get_args(kind) if one is not ...]
    made = [tupled(Union[tuple(below)], each) for each in value]  # noqa: UP007
    return tuple(made) if any(typing.get_origin(kind) is tuple for kind in kinds) else made


def whole(annotation: Any, value: Any) -> Any:
    """Return a value with whole numbers, such as 1e5 or 64.0, as int where the annotation takes int and not float."""
    kinds = list(_kinds(annotation))
    if isinstance(value, float):
        return int(value) if value.is_integer() and int in kinds and float not in kinds else value
    if isinstance(value, list):
        for kind in kinds:
            each = typing.get_args(kind)
            if typing.get_origin(kind) is tuple and ... not in each and len(each) == len(value):
                return [whole(one, item) for one, item in zip(each, value, strict=True)]
            if typing.get_origin(kind) in (list, tuple) and each:
                return [whole(each[0], item) for item in value]
    if isinstance(value, dict):
        for kind in kinds:
            if is_typeddict(kind):
                hints = typing.get_type_hints(kind, include_extras=True)
                return {key: whole(hints.get(key, Any), item) for key, item in value.items()}
            if typing.get_origin(kind) is dict:
                return {key: whole(typing.get_args(kind)[1], item) for key, item in value.items()}
    return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation takes, without the rules on their values."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType, Annotated):
        for each in arguments[:1] if origin is Annotated else arguments:
            yield from _kinds(each)
    else:
        yield annotation


def misnamed(path: str, cls: type, keys: Collection[str]) -> Iterator[str]:
    """Say which keys of a node the constructor does not take, and which it needs besides."""
    known = signature(cls)
    for key in keys:
        if key not in known and key != "_target_":
            yield f"unknown key {path}.{key}; {cls.__name__} takes {', '.join(known) or 'no keys'}{did_you_mean(key, list(known))}"
    if missing := [key for key, (_, default) in known.items() if default is ... and key not in keys]:
        yield f"{path} needs {', '.join(missing)}; {cls.__name__} has no default for it"


def mistyped(path: str, annotations: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Say of each value that does not fit its annotation what is expected: `trainer.steps=0: expected a whole number, 1 or more`.

    What the words of an annotation leave open is added: the message of a ValueError from a validator, else that of pydantic.
    """
    strict = pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    for key, annotation in annotations.items():
        if values[key] == MISSING:
            yield f"{f'{path}.{key}'.lstrip('.')} has no value yet: add {f'{path}.{key}'.lstrip('.')}=..."
            continue
        model = pydantic.create_model(key, __config__=strict, value=(annotation, ...))
        try:
            model(value=converted(annotation, values[key]))
        except pydantic.ValidationError as error:
            reasons = {_reason(line): None for line in error.errors() if not line["type"].endswith(IN_WORDS)}
            said = f"{f'{path}.{key}'.lstrip('.')}={values[key]!r}: expected {expected(annotation)}"
            yield "; ".join([said, *reasons, *_surprise(annotation, values[key])])


WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _surprise(annotation: Any, value: Any) -> Iterator[str]:
    """Explain a value that YAML reads differently from what somebody meant."""
    kinds = list(_kinds(annotation))
    if isinstance(value, str) and bool in kinds and value.lower() in WORDS:
        yield f"{value} is a text on a command line: write {WORDS[value.lower()]}"
    if isinstance(value, bool) and str in kinds:
        yield "yes, on and true mean true in a file, and no, off and false mean false: a text of these letters needs quotes"


def _reason(line: Any) -> str:
    """Return the message of one error of pydantic, which begins with a capital; of a ValueError its own."""
    return str(line["ctx"]["error"]) if line["type"] == "value_error" else line["msg"][0].lower() + line["msg"][1:]


def expected(annotation: Any) -> str:
    """Put what an annotation takes into words: `a whole number, 1 or more, or null`. Doc names the value: Doc("a number of samples")."""
    *others, last = dict.fromkeys(_alternatives(annotation))
    comma = "," if any("," in each for each in others) else ""
    return f"{', '.join(others)}{comma} or {last}" if others else last


def _alternatives(annotation: Any) -> list[str]:
    """Return the kinds of values that an annotation takes, in words: a type, a number in its range, each option of a Literal, null."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return [each for one in arguments for each in _alternatives(one)]
    if origin is Literal:
        return [str(each) for each in arguments]
    if origin is Annotated:
        rules = [rule for group in arguments[1:] for rule in _rules(group)]
        names = [rule.documentation for rule in rules if isinstance(rule, Doc)]
        bounds = [bound for rule in rules if (bound := _bound(rule))]
        if not names and not bounds:
            return _alternatives(arguments[0])
        return [", ".join([*(names or [expected(arguments[0])]), *bounds])]
    if annotation is bool:
        return ["true", "false"]
    if annotation in (None, types.NoneType):
        return ["null"]
    if origin in (list, tuple):
        each = [expected(one) for one in arguments if one is not ...]
        return [f"a list, each {each[0]}" if origin is list or ... in arguments else f"[{', '.join(each)}]"]
    if is_typeddict(annotation):
        keys = typing.get_type_hints(annotation, include_extras=True)
        return ["{" + ", ".join(f"{key}: {expected(one)}" for key, one in keys.items()) + "}"]
    other = with_article(annotation.__name__) if isinstance(annotation, type) else str(annotation).replace("typing.", "")
    return [NOUNS.get(origin or annotation, other)]


def _rules(group: Any) -> Iterable[Any]:
    """Split a group of rules, such as Interval(ge=1, le=3) or pydantic's Field(ge=1, le=3), into single rules; a single rule stays."""
    return group if isinstance(group, GroupedMetadata) else group.metadata if isinstance(group, FieldInfo) else [group]


def _bound(rule: Any) -> str | None:
    """Return a limit in words; None for any other rule."""
    match rule:
        case Ge(ge=least):
            return f"{least} or more"
        case Gt(gt=limit):
            return f"above {limit}"
        case Le(le=most):
            return f"at most {most}"
        case Lt(lt=limit):
            return f"below {limit}"
    return None
