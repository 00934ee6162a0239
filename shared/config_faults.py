"""What is wrong with a value of the configuration file, in words for whoever wrote it. No value is ever in them."""

import difflib
import re
from collections.abc import Collection

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
