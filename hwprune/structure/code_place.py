"""Where in a model's own code an operator is called, as exporters note it. No torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_NOTED = "pkg.torch.onnx.stack_trace"  # by the exporter of `torch.export`, the innermost call last
_FRAME = re.compile(r'(?:File ")?([^\s"()]+\.py)(?:\((\d+)\)|", line (\d+))')
_TORCH = re.compile(r"/torch/(?:nn|_|jit|onnx|utils|functional|autograd|export|fx)|hwprune/structure/")


def code_place(node: onnx.NodeProto) -> str:
    """File and line of the innermost call outside torch, `models/resnet.py:148`; "" where none is noted."""
    noted = next((entry.value for entry in node.metadata_props if entry.key == _NOTED), "")
    frames = _FRAME.findall(node.doc_string) or _FRAME.findall(noted)[::-1]
    for path, line, other in frames:
        if not _TORCH.search(path):
            return f"{'/'.join(path.split('/')[-2:])}:{line or other}"
    return ""


def shorten_place(node: onnx.NodeProto) -> None:
    """Leave of all that is noted only what `code_place` looks for."""
    path, _, line = code_place(node).partition(":")
    node.doc_string = f"{path}({line})" if path else ""
