"""A folder of documents as texts that fit a model: read, titled, cut into parts between sentences."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*\n")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and its title."""

    name: str
    title: str
    text: str

    @property
    def words(self) -> int:
        """How long it is."""
        return len(self.text.split())


def read(folder: Path) -> list[Document]:
    """Return the `.txt` and `.md` files of a folder in the order of their names, its README left out."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".txt", ".md") and path.stem != "README")
    return [Document(path.stem, title(path.stem), path.read_text(errors="replace")) for path in paths]


def title(stem: str) -> str:
    """Return a file's name as a title: `1790_george_washington_n` is `1790 George Washington`."""
    words = re.split(r"[_\s]+", stem)
    if len(words) > 2 and len(words[-1]) <= 2:
        words.pop()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def split(text: str, most_words: int) -> list[str]:
    """Cut a text into parts of at most `most_words` words, of about the same length, between sentences.

    A sentence longer than that is cut between words.
    """
    sentences = list(_sentences(text, most_words))
    total = sum(map(len, sentences))
    count = max(1, math.ceil(total / most_words))
    while True:
        parts: list[list[str]] = [[] for _ in range(count)]
        begin = 0
        for sentence in sentences:
            middle = begin + len(sentence) / 2
            parts[int(middle * count / total)] += sentence
            begin += len(sentence)
        if all(len(words) <= most_words for words in parts):
            return [" ".join(words) for words in parts if words]
        count += 1  # sentences do not fall together so evenly: at worst each is a part of its own


def _sentences(text: str, most_words: int) -> Iterator[list[str]]:
    begin = 0
    for end in [match.end() for match in SENTENCE_END.finditer(text)] + [len(text)]:
        words = text[begin:end].split()
        begin = end
        for start in range(0, len(words), most_words):
            yield words[start : start + most_words]
