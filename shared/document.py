"""A YAML file on its way to plain values: variables expanded, and for each value the line it stands on.

What the values mean, and which are right, is `config`'s.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

At = tuple[str | int, ...]
"""Where a value is: `("providers", "openai", "keys", 0)`."""

LARGEST = 2**20
MOST_VALUES = 20_000
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class Document:
    """One reading of one file; `faults` are lines and what is wrong there. No fault's text holds a value."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.faults: list[tuple[int, str]] = []
        self._env = env
        self._lines: dict[At, int] = {}
        self._unknown: set[At] = set()
        self._values = 0
        self._scalars = yaml.SafeLoader("")

    def read(self, raw: bytes) -> dict[str, Any] | None:
        """Return the file's mapping, None where it cannot be read at all. A value that is at fault reads as None."""
        try:
            if len(raw) > LARGEST:
                raise _Unreadable(1, f"the file is larger than {LARGEST} bytes")
            root = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
            if not isinstance(root, yaml.MappingNode):
                raise _Unreadable(1, "the file must be a mapping with `providers`")
            return self._mapping(root, ())
        except UnicodeDecodeError as error:
            self.faults.append((raw.count(b"\n", 0, error.start) + 1, "the file is not UTF-8"))
        except yaml.reader.ReaderError as error:
            line = raw.decode().count("\n", 0, error.position) + 1
            self.faults.append((line, "holds a character that YAML does not allow"))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.faults.append((line, f"is not YAML: {error.problem}"))
        except RecursionError:  # in the parser, or for an alias that stands inside what it stands for
            self.faults.append((1, "nests too deeply"))
        except _Unreadable as error:
            self.faults.append((error.line, error.text))
        return None

    def fault(self, at: At, text: str, *, of_value: bool = False) -> None:
        """Note a fault. One `of_value` is passed over where the value could not be known in the first place."""
        if of_value and at in self._unknown:
            return
        known = at
        while known and known not in self._lines:
            known = known[:-1]
        self.faults.append((self._lines.get(known, 1), f"{_dotted(at)}: {text}" if at else text))

    def _value(self, node: yaml.Node, at: At) -> object:
        line = node.start_mark.line + 1
        self._lines.setdefault(at, line)
        self._values += 1
        if self._values > MOST_VALUES:  # aliases of aliases may stand for any number of values
            raise _Unreadable(line, f"holds more than {MOST_VALUES} values")
        match node:
            case yaml.ScalarNode(tag="tag:yaml.org,2002:str"):
                return self._expanded(node.value, at)
            case yaml.ScalarNode():
                try:
                    return self._scalars.construct_object(node)
                except (yaml.YAMLError, ValueError):
                    self._unknowable(at, "is not a value of its type")
            case yaml.MappingNode() if node.tag in _PLAIN_TAGS:
                return self._mapping(node, at)
            case yaml.SequenceNode() if node.tag in _PLAIN_TAGS:
                return [self._value(one, (*at, index)) for index, one in enumerate(node.value)]
            case _:
                self._unknowable(at, "has a tag that is not supported")
        return None

    def _mapping(self, node: yaml.MappingNode, at: At) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append((key_node.start_mark.line + 1, "a key must be plain text"))
                continue
            here = (*at, str(key_node.value))
            self._lines[here] = key_node.start_mark.line + 1
            if key_node.value in found:
                self.fault(here, "is there twice")
            found[key_node.value] = self._value(value_node, here)
        return found

    def _expanded(self, text: str, at: At) -> str | None:
        """Return `text` with its variables' values, None where one is missing. What came in is not expanded again."""
        faults = []

        def replacement(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            if match[0] == "$${":
                return "${"
            if name is None:
                faults.append("`${` must begin ${NAME} or ${NAME:-default}; write `$${` for the characters themselves")
                return ""
            value = self._env.get(name)
            if default is not None:
                return value or default
            if value is None:
                faults.append(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
            return value or ""

        expanded = _VARIABLE.sub(replacement, text)
        for fault in faults:
            self._unknowable(at, fault)
        return None if faults else expanded

    def _unknowable(self, at: At, text: str) -> None:
        self.fault(at, text)
        self._unknown.add(at)


class _Unreadable(Exception):
    """The file as a whole cannot be read."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def _dotted(at: At) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
