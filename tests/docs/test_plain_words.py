"""Pages that a newcomer reads first are short, and figures of CIFAR-10 never stand without their caution."""

from __future__ import annotations

import re

import pytest
from pages import PAGES, text_of

MOST_LINES, MOST_WORDS = 150, 30
PLAIN = ("README.md", "docs/glossary.md", "docs/pretrained.md", "docs/time.md")


def sentences(text: str) -> list[str]:
    """Sentences outside of code: of paragraphs, items of lists and cells of tables."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    prose = re.sub(r"`[^`]*`", "code", prose)
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose)
    found = []
    for part in re.split(r"\n\s*\n|\n(?=- |#|\|)|(?<=\|)\n", prose):
        for cell in part.split("|") if part.lstrip().startswith("|") else [part]:
            found += re.split(r"(?<=[.?!])\s+", " ".join(cell.split()))
    return [one for one in found if one]


def words(sentence: str) -> int:
    """Words of a sentence; dashes and signs are none."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


@pytest.mark.parametrize("page", PLAIN)
def test_no_sentence_is_long(page: str) -> None:
    assert not [one for one in sentences(text_of(page)) if words(one) > MOST_WORDS]


def test_the_first_page_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= MOST_LINES


def test_a_long_sentence_would_be_found() -> None:
    text = "# Title\n\n- An item.\n\n| a cell | " + "word " * 31 + "|\n\n" + "one " * 16 + ".\n" + "Two " * 16
    counts = [words(one) for one in sentences(text)]
    assert max(counts) == 31
    assert sorted(counts)[-3:] == [16, 16, 31]


@pytest.mark.parametrize("page", [page for page in PAGES if "CIFAR-10" in text_of(page)])
def test_cifar_10_is_called_what_it_is(page: str) -> None:
    assert "JPEG" in text_of(page), "say once that it is a JPEG copy whose accuracies are not those of papers"
