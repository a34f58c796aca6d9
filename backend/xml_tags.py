"""Reads the start tags of an XML text that may come from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

MAX_CHARACTERS: Final = 1_000_000
MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Tag:
    """One start tag.

    Args:
        name: Lower-case name.
        attributes: Attributes as written.
        parent: Index of the enclosing tag in the list it came in, -1 for the root.
    """

    name: str
    attributes: dict[str, str]
    parent: int


def read_tags(xml: str) -> list[Tag]:
    """The tags of an XML text in document order.

    Document types are refused, and with them every entity that is not built in, so that
    nothing is expanded and nothing is fetched.

    Raises:
        ValueError: Not well-formed, larger than `MAX_CHARACTERS`, deeper than `MAX_DEPTH`,
            or with a document type. The message says which.
    """
    if len(xml) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    tags: list[Tag] = []
    path: list[int] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) >= MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} tags")
        tags.append(Tag(name.lower(), attributes, path[-1] if path else -1))
        path.append(len(tags) - 1)

    def end(_name: str) -> None:
        path.pop()

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type, which is not allowed")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds characters that are no text") from error
    return tags
