"""Text from anybody inside Markdown and XML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune.plain import markdown_block, markdown_text, xml_text

ANY = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer1.0.conv1, 64 -> 48, -1.00 points, 60%", "layer1.0.conv1, 64 -> 48, -1.00 points, 60%"),
        ("-1.00 points", "-1.00 points"),
        ("1.72x", "1.72x"),
        ("<img src=x>", "&lt;img src=x>"),
        ("a_b*c*`d`|e", r"a\_b\*c\*\`d\`\|e"),
        ("[a](http://b)", r"\[a\](http://b)"),
        ("a\n\n# b", r"a \# b"),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("> a", r"\> a"),
        ("---", r"\---"),
        ("&lt;", "&amp;lt;"),
        ("\x1b[31m\ud800", "\ufffd\\[31m\ufffd"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


@given(ANY)
def test_nothing_in_a_text_ends_its_block(text: str) -> None:
    first, *inside, last = markdown_block(text)
    assert first == last
    assert re.fullmatch("`{3,}", first)
    assert not any(first in line for line in inside)
    "\n".join(inside).encode()


@given(ANY)
def test_xml_holds_any_text(text: str) -> None:
    root = ElementTree.Element("a")
    root.text = xml_text(text)
    ElementTree.fromstring(ElementTree.tostring(root))
