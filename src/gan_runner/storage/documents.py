"""Parse untrusted configurations within bounds, and check which interpolations they contain. Imports no torch."""

import io
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser as Grammar
from omegaconf.grammar_parser import parse

from gan_runner.errors import UserError, printable
from gan_runner.storage.untrusted import LOADER

SIZE = 2**18  # bytes of a file
VALUES = 3_000  # in a file, with every alias written out
TEXT = 2**20  # characters of these values; also those of a configuration whose interpolations are resolved
DEPTH = 50  # levels of a file
CHAIN = 20  # interpolations that lead from one to the next
DIGITS = 100  # of a number
INTERPOLATIONS = 300  # texts of a file that have one
INTERPOLATED = 500  # characters of such a text

DATA = "oc.env:GAN_RUNNER_DATA"  # the place of the data: the one variable of the environment that a file may ask for
MARK = "${"
KEY = re.compile(r"[\w.\[\]@/-]+")  # of an interpolation, without spaces and quotes around it

Tree = dict[str, Any]
Path = tuple[Any, ...]


# ---- documents ----------------------------------------------------------------------------------------------------------------------


def document(data: bytes | None, name: str, ours: bool = False) -> DictConfig:
    """Parse a YAML document as OmegaConf does. UserError if it exceeds the bounds above; yaml.YAMLError if it is not YAML.

    data: None if there was no regular file of at most SIZE bytes. ours: a file of the project, whose interpolations are trusted. All
    bounds are checked before any object is built.
    """
    if data is None:
        raise UserError(f"{name} cannot be read: expected a regular file of at most {SIZE // 1024} KiB")
    try:
        return OmegaConf.create(_tree(data, name, ours))
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: {rendered(error)}") from error


@lru_cache(1000)
def _tree(data: bytes, name: str, ours: bool) -> Tree:
    """Parse a document; cached by its bytes, since a sweep reads the same files for every job."""
    try:
        stream = io.StringIO(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{name}, line {line}: not encoded as UTF-8; save the file as UTF-8") from error
    stream.name = name  # type: ignore[attr-defined]  # what yaml calls the document in its errors
    try:
        _skim(data, name)
        loader = get_yaml_loader()(stream)
        node = loader.get_single_node()
        if node is None:
            return {}
        _measure(node, name, {})
        tree = loader.construct_document(node)
    except RecursionError as error:
        raise UserError(f"{name}: more than {DEPTH} levels, one inside the other") from error
    except (ValueError, OverflowError) as error:
        raise UserError(f"{name}: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{name}: expected KEY: VALUE, got {printable(str(tree), 50)}")
    if not ours:
        refuse_interpolations(tree, name)
    return tree


def _too_large(name: str, line: int) -> UserError:
    return UserError(
        f"{name}, line {line + 1}: larger than a configuration can be: with every alias written out, at most {VALUES:,} values, "
        f"{TEXT:,} characters and {DEPTH} levels"
    )


def _skim(data: bytes, name: str) -> None:
    """Check the number of values and levels with the C parser if there is one: OmegaConf's takes seconds for a large document."""
    values = levels = 0
    try:
        for event in yaml.parse(data, Loader=LOADER):
            values += isinstance(event, yaml.NodeEvent)
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if values > VALUES or levels > DEPTH:
                raise _too_large(name, event.start_mark.line)
    except yaml.MarkedYAMLError as error:  # any other is named by the parser of OmegaConf
        if error.problem_mark is not None and "nesting depth" in str(error.problem):
            raise _too_large(name, error.problem_mark.line) from error
    except yaml.YAMLError:
        pass


def _measure(node: yaml.Node, name: str, known: dict[int, tuple[int, int, int] | None]) -> tuple[int, int, int]:
    """Return (values, characters, levels) of a node, with every alias written out. UserError if they exceed the bounds."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise UserError(f"{name}, line {node.start_mark.line + 1}: an alias that leads back to itself")
        return measured
    known[id(node)] = None
    values, text, levels = 1, 0, 1
    if isinstance(node, yaml.ScalarNode):
        text = len(node.value)
        if node.tag.endswith((":int", ":float")) and text > DIGITS:
            raise UserError(f"{name}, line {node.start_mark.line + 1}: a number of {text} characters")
    else:
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        for part in parts:
            more, longer, deeper = _measure(part, name, known)
            values, text, levels = values + more, text + longer, max(levels, deeper + 1)
    if values > VALUES or text > TEXT or levels > DEPTH:
        raise _too_large(name, node.start_mark.line)
    known[id(node)] = values, text, levels
    return values, text, levels


# ---- interpolations -----------------------------------------------------------------------------------------------------------------


def texts(tree: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """List (path, text) of every text of a configuration that has an interpolation."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if isinstance(value, str) and MARK in value:
            yield (*path, key), value
        else:
            yield from texts(value, (*path, key))


def refuse_interpolations(tree: Tree, name: str) -> None:
    """Raise UserError for interpolations that an untrusted file must not have: the environment, oc.create, oc.decode and the like.

    `${KEY}`, `${oc.select:KEY,DEFAULT}`, `${now:FORMAT}` and the place of the data, `${oc.env:GAN_RUNNER_DATA,DEFAULT}`, are allowed.
    """
    for number, (path, text) in enumerate(texts(tree)):
        where = f"{name}: {key_of(path)}: {printable(text, 100)}"
        if number >= INTERPOLATIONS or len(text) > INTERPOLATED:
            raise UserError(f"{where}: more interpolations than a configuration can have")
        if not is_allowed(text):
            raise UserError(
                f"{where} is refused: a file may ask for other keys, for the time and for {MARK}{DATA},DEFAULT}}; "
                f"write the value itself, or leave the key out and say {key_of(path)}=... on the line"
            )


def is_allowed(text: str) -> bool:
    """Return whether an untrusted file may have this text."""
    try:
        return "\\" not in text and all(map(_allowed, _interpolations(text)))
    except (GrammarParseError, RecursionError):
        return False


def key_of(path: Path) -> str:
    return printable(".".join(map(str, path)), 100)


def _interpolations(text: str) -> Iterator[Any]:
    """List the interpolations of a text, nested ones too, by OmegaConf's grammar."""

    def visit(node: Any) -> Iterator[Any]:
        if isinstance(node, Grammar.InterpolationNodeContext | Grammar.InterpolationResolverContext):
            yield node
        for child in getattr(node, "children", None) or ():
            yield from visit(child)

    return visit(parse(text))


def _allowed(node: Any) -> bool:
    inner = node.getText()[2:-1]
    if MARK in inner:  # a name that is put together from other values is known too late
        return False
    if (asked := _asked(node)) is not None:
        return KEY.fullmatch(asked) is not None
    return inner.startswith(("now:", f"{DATA},")) or inner == DATA


def _asked(node: Any) -> str | None:
    """Return the key that an interpolation refers to; None if it refers to something else."""
    inner = node.getText()[2:-1]
    if isinstance(node, Grammar.InterpolationNodeContext):
        return inner.strip()
    resolver, _, asked = inner.partition(":")
    return asked.partition(",")[0].strip().strip("'\"") if resolver == "oc.select" else None


def references(text: str) -> list[str]:
    """List the keys that a text refers to, without spaces and quotes, and without keys that are computed from other values."""
    try:
        return [asked for node in _interpolations(text) if MARK not in node.getText()[2:-1] and (asked := _asked(node)) is not None]
    except (GrammarParseError, RecursionError):
        return []  # OmegaConf says so where the text is used


def asks_only(text: str, keys: Collection[str]) -> bool:
    """Return whether every interpolation of a text refers to one of these keys."""
    found = references(text) if MARK in text else []
    return set(found) <= set(keys) and text.count(MARK) == len(found)


def refuse_covered(name: str, tree: Any, interpolated: Collection[Path]) -> None:
    """Raise UserError for keys below an interpolation of another file: OmegaConf would resolve it before its size is checked."""
    for path in interpolated:
        node = tree
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            raise UserError(f"{name} sets keys below {key_of(path)}, which is an interpolation in another file")


def refuse_growth(config: DictConfig, name: str) -> None:
    """Raise UserError for interpolations that form a cycle or resolve to more than TEXT characters, before any is resolved."""
    tree = OmegaConf.to_container(config, resolve=False)
    known: dict[Path, tuple[int, int] | None] = {}

    def size(node: Any, path: Path) -> tuple[int, int]:
        """Return (characters, length of the longest chain of interpolations) of a resolved node."""
        if path in known:
            measured = known[path]
            if measured is None:
                raise UserError(f"{name}: {key_of(path)} leads back to itself")
            return measured
        known[path] = None
        total, chain = 16, 0
        if isinstance(node, dict | list):
            for key, value in node.items() if isinstance(node, dict) else enumerate(node):
                more, longer = size(value, (*path, key))
                total, chain = total + more, max(chain, longer)
        elif isinstance(node, str):
            total += len(node)
            for asked in references(node) if MARK in node else ():
                if (target := _target(tree, path, asked)) is not None:
                    more, longer = size(*target)
                    total, chain = total + more, max(chain, longer + 1)
        if total > TEXT or chain > CHAIN:
            raise UserError(f"{name}: {key_of(path)} becomes larger than a configuration can be once its interpolations are resolved")
        known[path] = total, chain
        return total, chain

    size(tree, ())


def _target(tree: Any, path: Path, asked: str) -> tuple[Any, Path] | None:
    """Return the node that `${asked}` at a path refers to, or the interpolation on the way to it; None if there is neither."""
    key = asked.lstrip(".")
    dots = len(asked) - len(key)
    at = path[: len(path) - dots] if dots else ()
    node = tree
    for step in at:
        node = node[step]
    for step in filter(None, key.replace("[", ".").replace("]", "").split(".")):
        if isinstance(node, str):
            break
        try:
            found: Any = int(step) if isinstance(node, list) else step
            node = node[found]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        at = (*at, found)
    return node, at


def rendered(error: BaseException) -> str:
    """Format an error of YAML, OmegaConf or Hydra in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = getattr(cause, "full_key", None)
        first = str(cause).strip().splitlines()[0]
        return f"{key}: {first}" if key else first
    lines = [one.strip() for one in str(error).strip().splitlines() if one.strip()]
    where = re.fullmatch(r"In '(.*)': \w+ raised while composing config:", lines[0]) if lines[1:] else None
    if where:
        return f"{where[1]}.yaml: {lines[1]}"
    return " ".join(lines[:2]) or type(error).__name__
