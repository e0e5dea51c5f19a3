"""Readers of what users bring: ONNX, weights, images, parquet, quantities, command lines."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shlex
from typing import TYPE_CHECKING

import fuzz_seeds as seeds
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from fuzz_files import at
from fuzz_harness import Reader
from fuzz_mutator import bad_bytes
from safetensors.torch import save

from hwprune.cli.main import _options_of, main
from hwprune.data.datasets import open_data
from hwprune.errors import HwpruneError, UsageError
from hwprune.latency.fingerprint import graph_fingerprint
from hwprune.models.weights import load_weights
from hwprune.project.budgets import parse_budgets
from hwprune.structure.fusion import expected_fusion
from hwprune.structure.kernels import derive_kernels
from hwprune.structure.onnx_graph import read_graph, static_inputs, without_weights
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.units import parse_seconds

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

_NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "2147483648",
    "9223372036854775808",
    "1e400",
    "nan",
    "",
    "x",
    "1,2",
    "9" * 5000,
)
_PATHS = ("x" * 300, "x/" * 3000, "\udcff", "a b", "-", "--", "'", "$(touch x)", "x/../y", "[red]", "\x1b[2J")
_BUDGETS = (
    "60%",
    "15ms",
    "0ms",
    "-1ms",
    "1e400ms",
    "1ms:2ms",
    "2ms:1ms",
    "cpu/x=60%",
    "=",
    "a=b=c",
    ":",
    "%",
    "∞ms",
)
_OPTIONS = (
    *(
        "--latency",
        "--macs",
        "--params",
        "--size",
        "--points",
        "--point",
        "--project",
        "--device",
        "--profile",
    ),
    *(
        "--json",
        "--seed",
        "--epochs",
        "--score",
        "--output",
        "--onnx",
        "--widths",
        "--model",
        "--data",
        "--help",
    ),
    *(
        "--batch",
        "--max-time",
        "--plan",
        "--image-size",
        "--start",
        "--force",
        "--no-force",
        "--x",
        "-h",
        "--",
    ),
    *("--baseline", "--budget", "--max-regression", "--html", "--markdown", "--junit"),
)
_NO_WORK = ("quickstart", "init", "profile", "doctor")  # they measure or train: only their words are read


def _read_onnx(_: Path, content: bytes) -> None:
    graph = read_graph(content)
    expected_fusion(graph), derive_kernels(graph, seeds.space()), graph_fingerprint(graph)
    without_weights(content), static_inputs(content)
    OnnxSlicer(content, seeds.space()).slice(seeds.space().smallest(), batch=2)


def _bad_onnx(rng: Random, content: bytes) -> bytes:
    """Damaged bytes, or a well-formed model that says something impossible."""
    if rng.random() < 0.5:
        return bad_bytes(rng, content)
    model = onnx.load_model_from_string(content)
    graph, number = model.graph, rng.choice((-1, 0, 1, 3, 2**31, 2**40, 2**62, -(2**63)))
    weight, node = rng.choice(graph.initializer), rng.choice(graph.node)
    shape = rng.choice([*graph.input, *graph.output]).type.tensor_type.shape
    names = [name for one in graph.node for name in (*one.input, *one.output)] + ["", "nowhere"]
    for _ in range(rng.randint(1, 2)):
        change = rng.randrange(12)
        if change == 0 and weight.dims:
            weight.dims[rng.randrange(len(weight.dims))] = number
        elif change == 1 and shape.dim:
            rng.choice(shape.dim).dim_value = number
        elif change == 2:
            weight.data_location = onnx.TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="../../../../etc/passwd")
        elif change == 3 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif change == 4 and node.output:
            node.output[0] = rng.choice(names)
        elif change == 5:
            del node.output[:]
        elif change == 6:
            del node.input[rng.randrange(len(node.input) + 1) :]
        elif change == 7:
            node.op_type = rng.choice(
                ("Concat", "Transpose", "MatMul", "Loop", "ConstantOfShape", "x" * 9999, "")
            )
        elif change == 8 and node.attribute:
            one = rng.choice(node.attribute)
            one.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8))
            one.i, one.f = number, float("nan")
            one.ints.append(number)
        elif change == 9:
            weight.data_type = rng.randrange(25)
        elif change == 10:
            graph.node.append(rng.choice(graph.node))
        else:
            del graph.node[rng.randrange(len(graph.node))]
    return bytes(model.SerializeToString())


def _pt(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _weights(suffix: str, content: bytes) -> Reader:
    model = seeds.network()
    return Reader(
        name=f"weights.{suffix}",
        seeds=(content,),
        mutate=bad_bytes,
        read=at(f"w.{suffix}", lambda path: load_weights(model, path)),
    )


def _folder() -> Reader:
    """One image among three good ones; what kind it is says its content, not its name."""
    kinds = [("PNG", "RGB"), ("PNG", "I;16"), ("PNG", "P"), ("JPEG", "RGB"), ("GIF", "P"), ("BMP", "RGB")]
    kinds += [("TIFF", "RGB"), ("TIFF", "L"), ("WEBP", "RGB"), ("PPM", "RGB"), ("PPM", "L")]
    files = tuple(seeds.picture(1, kind, mode) for kind, mode in kinds)

    def read(sandbox: Path, content: bytes) -> object:
        for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"):
            path = sandbox / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(files[0])
        (sandbox / "bee" / "1.png").write_bytes(content)
        return open_data(f"imagefolder:{sandbox}")

    return Reader(name="image-folder", seeds=files, mutate=bad_bytes, read=read)


def _parquet() -> Reader:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": seeds.picture(row, "PNG"), "path": "../../etc/passwd"} for row in range(6)]
    label = {"_type": "ClassLabel", "names": ["ant", "bee"]}
    meta = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    table = pa.table(
        {"image": pa.array(images, kind), "label": pa.array([0, 1] * 3)}
    ).replace_schema_metadata(meta)
    contents = []
    for compression in ("none", "snappy", "gzip", "zstd"):
        file = io.BytesIO()
        pq.write_table(table, file, compression=compression)
        contents.append(file.getvalue())
    return Reader(
        name="parquet",
        seeds=tuple(contents),
        mutate=bad_bytes,
        read=at("train.parquet", lambda path: open_data(f"parquet:{path.parent}")),
    )


def _read_quantity(_: Path, content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    places = [("", "", ""), (text, "", ""), ("", text, ""), ("", "", text)]
    asks = [lambda place=place: parse_budgets("5ms" if any(place) else text, *place) for place in places]
    understood = 0
    for ask in (*asks, lambda: parse_seconds(text, "--seconds")):
        with contextlib.suppress(HwpruneError):
            ask()
            understood += 1
    if not understood:
        raise UsageError("Neither a budget nor a time.", got=text)


def _bad_command(rng: Random, content: bytes) -> bytes:
    """Words of a command line left out, doubled, added, or given another value."""
    words = shlex.split(content.decode())
    for _ in range(rng.randint(1, 3)):
        place, change = rng.randrange(len(words) + 1), rng.randrange(4)
        if change == 0:
            del words[place : place + 1]
        elif change == 1:
            words[place:place] = [rng.choice(_OPTIONS), rng.choice(_NUMBERS + _PATHS + _BUDGETS)]
        elif change == 2:
            words[place : place + 1] = [rng.choice(_NUMBERS + _PATHS + _BUDGETS)]
        else:
            words[place:place] = [rng.choice(_OPTIONS)]
    return shlex.join(words).encode("utf-8", "surrogateescape")


def _read_command(sandbox: Path, content: bytes) -> None:
    """Exit codes 0, 1 and 2 are documented; nothing else leaves `main`.

    2 stands for words that are not understood; of `bench`, whose 1 is a verdict, for all that it refuses.
    """
    text = content.decode("utf-8", "surrogateescape")
    try:
        words = [word.replace("\0", "") for word in shlex.split(text)]  # no process is given a NUL
    except ValueError:  # no shell passes that on
        words = ["-"]
    silent = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), contextlib.chdir(sandbox):
        silent.reconfigure(errors="backslashreplace")  # as Python's own stderr
        try:
            code = _parsed(words) if words and words[0] in _NO_WORK else main(words)
        except SystemExit as error:
            code = error.code
    if code == 2 and words[:1] != ["bench"]:
        raise UsageError("These words are not understood.", got=words)
    if code not in (0, 1, 2):
        raise AssertionError(f"exit code {code!r}")


def _parsed(words: list[str]) -> int:
    function = getattr(importlib.import_module(f"hwprune.verbs.{words[0]}"), words[0])
    tyro.cli(_options_of(function), args=words[1:])
    return 0


def readers() -> list[Reader]:
    """All of them."""
    state = seeds.network().state_dict()
    commands = (
        *(
            "search --latency 60% --macs 300M --seed 1 --score macs",
            "predict --widths 1,2,3",
            "lut show table",
        ),
        *(
            "lut merge a b --output c",
            "train --epochs 2",
            "export --onnx --output x.onnx",
            "report --no-json",
        ),
        *(
            "init --model resnet20 --data digits --image-size 32",
            "profile --device cpu --max-time 5s",
            "doctor",
        ),
        "search --latency 5ms:20ms --points 8 --project .",
        "bench x.onnx --baseline y.onnx --max-regression 5% --budget 15ms --output b.json",
        "bench . --device cpu --profile cpu-1t --max-time 1s --markdown b.md --junit b.xml",
        "compare a b/report.json --html both.html --markdown both.md",
    )
    return [
        Reader(name="onnx", seeds=(seeds.onnx_bytes(),), mutate=_bad_onnx, read=_read_onnx),
        _weights("safetensors", save(state)),
        _weights("pt", _pt(state)),
        _folder(),
        _parquet(),
        Reader(
            name="quantity",
            seeds=tuple(text.encode() for text in ("60%", "15ms", "0.5s", "2min")),
            mutate=bad_bytes,
            read=_read_quantity,
        ),
        Reader(
            name="command-line",
            seeds=tuple(text.encode() for text in commands),
            mutate=_bad_command,
            read=_read_command,
        ),
    ]
