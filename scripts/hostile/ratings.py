"""The key of a rating page and the answers of its raters, malformed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from hostile.directories import DEEP, device, directory, fifo, huge, linked
from hostile.stage import COLOURS, ESCAPE, TURNED, Attack, Stage, put


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        path = stage.here / "rating" / name
        content = json.loads(path.read_text())
        result = change(content)
        put(path, json.dumps(content if result is None else result, ensure_ascii=False))

    return spoil


def every_answer(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: [answer.update(values) for answer in content["answers"]] and None


def one_question(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: next(answer for answer in content["answers"] if answer["kind"] == "question").update(values)


NAN, INFINITE = float("nan"), float("inf")
KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda key: [1, 2],
    "no covariates": lambda key: key.pop("covariates") and None,
    "no questions": lambda key: key.pop("questions") and None,
    "no practice": lambda key: key.pop("practice") and None,
    "no source": lambda key: key.pop("source") and None,
    "no staircase": lambda key: key.pop("staircase", None),
    "ragged covariates": lambda key: key["covariates"].append([1] * 7),
    "covariates that are texts": lambda key: key.update(covariates=[["x"]] * len(key["real"])),
    "covariates that are nan": lambda key: key.update(covariates=[[NAN, NAN]] * len(key["real"])),
    "covariates that are infinite": lambda key: key.update(covariates=[[INFINITE, 1e300]] * len(key["real"])),
    "covariates without columns": lambda key: key.update(covariates=[[]] * len(key["real"])),
    "too few covariates": lambda key: key.update(covariates=key["covariates"][:2]),
    "more practice than pairs": lambda key: key.update(practice=list(range(100))),
    "practice is a number": lambda key: key.update(practice=3),
    "a text for what is real": lambda key: key.update(real="01" * 4),
    "what is real is neither": lambda key: key.update(real=[7] * len(key["real"])),
    "a pool of a million": lambda key: key.update(real=[0] * 1_000_000, covariates=[[0.0, 0.0]] * 1_000_000),
    "questions beyond all numbers": lambda key: key.update(questions=10**400),
    "questions that are a text": lambda key: key.update(questions=ESCAPE),
    "a staircase of nothing": lambda key: key.update(staircase={"x": COLOURS}),
    "colours for a source": lambda key: key.update(source={COLOURS: COLOURS}, page=key["page"]),
    "colours for a page": lambda key: key.update(page=COLOURS),
}
ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda said: [1, 2],
    "a text": lambda said: "x",
    "answers that are numbers": lambda said: said.update(answers=[1, 2, 3]),
    "answers that are none": lambda said: said.update(answers=None),
    "no kind": every_answer(kind=None),
    "a pair beyond the pool": one_question(pair=10**9),
    "a negative pair": one_question(pair=-1),
    "a pair that is true": one_question(pair=True),
    "a pair beyond practice": lambda said: [a.update(pair=10**6) for a in said["answers"] if a["kind"] == "practice"] and None,
    "a negative pair of practice": lambda said: [a.update(pair=-(10**6)) for a in said["answers"] if a["kind"] == "practice"] and None,
    "a chance of nothing": one_question(q=5e-324),
    "a chance that is nan": one_question(q=NAN),
    "chances of a millionth": every_answer(q=1e-6),
    "a time that is nan": every_answer(ms=NAN),
    "an infinite time": every_answer(ms=INFINITE),
    "a time that is a text": every_answer(ms=COLOURS),
    "a time beyond all numbers": every_answer(ms=10**400),
    "a negative time": every_answer(ms=-1e308),
    "chose neither": one_question(chose=2),
    "chose yes": one_question(chose=True),
    "an exposure that is a text": every_answer(exposure="x"),
    "a rater with colours": lambda said: said.update(rater=COLOURS),
    "a rater turned round": lambda said: said.update(rater=TURNED),
    "a rater of a million letters": lambda said: said.update(rater="x" * 1_000_000),
    "a rater that is a list": lambda said: said.update(rater=[[ESCAPE]], session={"a": ESCAPE}),
    "another page": lambda said: said.update(page=COLOURS),
    "one answer": lambda said: said.update(answers=[a for a in said["answers"] if a["kind"] == "question"][:1]),
    "100,000 repeats": lambda said: said.update(answers=said["answers"] + [said["answers"][-1]] * 100_000),
}
TEXTS = {"nothing": b"", "half": b'{"version": 1, "pa', "noise": b"\xff\xfe\x00\x01", "a deep document": DEEP.encode(), "a digit": b"3"}
TEXTS |= {"a number of 100,000 digits": b'{"page": ' + b"9" * 100_000 + b"}", "null": b"null"}


def attacks() -> Iterator[Attack]:
    for name, change in KEYS.items():
        yield Attack("rating", f"key: {name}", "rating", edited("key.json", change))
    for name, change in ANSWERS.items():
        yield Attack("rating", f"answers: {name}", "rating", edited("anna.json", change))
    for name, data in TEXTS.items():
        for file in ("key.json", "anna.json"):
            yield Attack("rating", f"{file}: {name}", "rating", lambda stage, file=file, data=data: put(stage.here / "rating" / file, data))
    for file in ("key.json", "anna.json"):
        for what, spoil in {
            "a pipe": fifo,
            "/dev/zero": device("zero"),
            "1 TB": huge,
            "a folder": directory,
            "a loop": linked("itself"),
        }.items():
            spoiled = lambda stage, file=file, spoil=spoil: spoil(stage, stage.here / "rating" / file)  # noqa: E731
            yield Attack("rating", f"{file} is {what}", "rating", spoiled)
    yield Attack("link", "score.json -> precious", "rating", lambda stage: linked("precious")(stage, stage.here / "rating/score.json"))
    yield Attack(
        "link", "the folder of a page -> photos", "pictures", lambda stage: (stage.here / "rated").symlink_to(stage.outside / "photos")
    )
