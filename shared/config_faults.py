"""What is wrong with a value of the configuration file, in words for whoever wrote it. No value is ever in them."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

_WORDS = {
    "missing": "is required",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be lower-case letters, digits, `-` and `_`, at most 63, the first no `-` or `_`",
}


def in_words(found: ErrorDetails, name: str, known: Collection[str]) -> str:
    """Return what pydantic found at the key `name`, where the `known` keys may stand."""
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return "is not a key here" + suggestion(name, known)
    plain = re.sub(r"^\w+ should", "must", found["msg"].removeprefix("Value error, "))
    return _WORDS.get(found["type"], plain)


def suggestion(name: str, known: Collection[str]) -> str:
    """Return `; did you mean ...?` for a name that is close to a known one, else all that are known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are: {', '.join(known)}" if known else ""


_CHAINS = ("fallbacks", "context_fallbacks", "content_fallbacks")


def spread_faults(models: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where the `models` of a file, as they were read, name a target or a fallback twice or go in circles."""
    if not isinstance(models, dict):
        return
    for name, model in models.items():
        for key in ("targets", *_CHAINS):
            named = _named(model, key)
            for index, one in enumerate(named):
                if one is not None and one in named[:index]:
                    yield ("models", name, key, index), "is there twice"
                elif key in _CHAINS and one == name:
                    yield ("models", name, key, index), "is this model itself"
                elif key in _CHAINS and one is not None and _reaches(models, one, name, key):
                    yield ("models", name, key, index), f"leads back to `{name}`; take one of them out"


def _named(model: object, key: str) -> list[Any]:
    """Return the names in a list, None for what is none."""
    listed = model.get(key) if isinstance(model, dict) else None
    found = [one.get("target") if isinstance(one, dict) else one for one in listed] if isinstance(listed, list) else []
    return [one if isinstance(one, str) else None for one in found]


def _reaches(models: Mapping[str, object], start: str, goal: str, key: str) -> bool:
    seen, ahead = {start}, [start]
    while ahead:
        following = [one for one in _named(models.get(ahead.pop()), key) if one is not None and one not in seen]
        if goal in following:
            return True
        seen.update(following)
        ahead += following
    return False
