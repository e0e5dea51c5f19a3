"""Text from anybody, such as names of files and models, made safe to stand in Markdown and XML."""

from __future__ import annotations

import re
from html import escape

_MARKUP = re.compile(r"([\\`*_\[\]|~#])")
_BLOCK = re.compile(r"^(\d*)([-+=>.)])(?=[-=\s]|$)")  # at the start of a line: a list, a quotation, a heading
# What XML 1.0 cannot hold, escaped or not: names of files may be any bytes.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text without what neither XML nor a file in UTF-8 can hold."""
    return _NOT_XML.sub("\ufffd", text)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    one_line = " ".join(xml_text(text).split())
    marked = _MARKUP.sub(r"\\\1", escape(one_line, quote=False).replace("&gt;", ">"))
    return _BLOCK.sub(r"\1\\\2", marked)


def markdown_block(text: str) -> list[str]:
    """Lines that Markdown shows as they are, in a fence that nothing in them can end."""
    shown = xml_text(text)
    fence = "`" * max([3, *(1 + len(ticks) for ticks in re.findall("`+", shown))])
    return [fence, *shown.splitlines(), fence]
