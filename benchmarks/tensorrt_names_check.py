"""Compare the names that hwprune uses of TensorRT with those of an installed TensorRT. No GPU is needed.

    python benchmarks/tensorrt_names_check.py                  # the installed package
    python benchmarks/tensorrt_names_check.py tensorrt_cu13_bindings-11.4.0.106-....whl

A wheel of the bindings alone needs libraries of two gigabytes to load. So empty libraries of the same names
are made with gcc, enough to import the module and to read its signatures, which are all that is compared.
Prints each difference; exit status 1 when there are any.
"""

from __future__ import annotations

import argparse
import enum
import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAMES = Path(__file__).resolve().parents[1] / "tests" / "runtimes"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def main() -> int:
    """Parse the arguments and compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path, nargs="?", help="a wheel of the bindings")
    parser.add_argument("--module", default="tensorrt", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.wheel:
        return with_empty_libraries(arguments.wheel)
    sys.path.insert(0, str(NAMES))
    sys.setdlopenflags(os.RTLD_LAZY)
    module = importlib.import_module(arguments.module)
    problems = differences(module)
    print("\n".join(problems) or f"TensorRT {module.__version__}: all names and parameters agree")
    return int(bool(problems))


def with_empty_libraries(wheel: Path) -> int:
    """Run this script again where the wheel's module finds libraries that have its symbols and do nothing."""
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        module = Path(folder) / "tensorrt_bindings" / "tensorrt.so"
        needed = subprocess.run(["ldd", module], capture_output=True, text=True, check=True).stdout
        listed = subprocess.run(["nm", "-D", "--undefined-only", module], capture_output=True, text=True)
        symbols = re.findall(
            r" U ((?:create|get|init)\w*(?:INTERNAL|Version|Registry|Plugins))$", listed.stdout, re.M
        )
        source = Path(folder) / "empty.c"
        source.write_text("".join(f"int {symbol}(void) {{ return 0; }}\n" for symbol in symbols))
        for name in re.findall(rf"(lib(?:{'|'.join(LIBRARIES)})\.so\.\d+) =>", needed):
            command = ["gcc", "-shared", "-fPIC", source, f"-Wl,-soname,{name}", "-o", Path(folder) / name]
            subprocess.run(command, check=True)
        paths = {"LD_LIBRARY_PATH": folder, "PYTHONPATH": os.pathsep.join([folder, *sys.path[1:]])}
        again = [sys.executable, __file__, "--module", "tensorrt_bindings"]
        return subprocess.run(again, env={**os.environ, **paths}, check=False).returncode


def differences(module: object) -> list[str]:
    """What the contract says of TensorRT that is not so."""
    from tensorrt_names import ENUMS, ENUMS_OF, TENSORRT

    version = int(module.__version__.split(".")[0])
    problems = []
    for name, (expected, _) in TENSORRT.items():
        thing = resolve(module, name)
        if thing is None:
            problems.append(f"{name}: no such name")
        elif expected is not None and not any(fits(expected, found) for found in signatures(thing)):
            problems.append(f"{name}: {signatures(thing)}, not {expected}")
    for name, members in {**ENUMS, **ENUMS_OF[version]}.items():
        there = set(getattr(resolve(module, name), "__members__", ()))
        problems += [f"{name}.{member}: no such member" for member in members if member not in there]
    if version >= 11:
        from tensorrt_names import ABSENT_IN_11

        for name, members in ABSENT_IN_11.items():
            there = set(resolve(module, name).__members__)
            problems += [f"{name}.{member}: still there" for member in members if member in there]
    return problems


def resolve(module: object, name: str) -> object | None:
    """The thing of a dotted name, None when there is none."""
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def signatures(thing: object) -> list[tuple[tuple[str, bool], ...]]:
    """Parameters of each overload, (name, has a default), as pybind11 wrote them into the documentation."""
    target = thing.__init__ if inspect.isclass(thing) and not issubclass(thing, enum.Enum) else thing
    if inspect.isfunction(target):
        return [tuple((name, False) for name in inspect.signature(target).parameters)]
    lines = re.findall(
        r"^(?:\d+\. )?\w+\((self: .*?)\)(?: -> .*)?$", re.sub(r"<[^<>]*>", "0", target.__doc__ or ""), re.M
    )
    return [
        tuple((name, bool(default)) for name, default in re.findall(r"(\w+): [^,=]+(=?)", line)[1:])
        for line in lines
    ]


def fits(expected: tuple[str, ...], found: tuple[tuple[str, bool], ...]) -> bool:
    """Whether a call with the expected parameters, by name or place, fits an overload."""
    names = tuple(name for name, _ in found)
    return names[: len(expected)] == expected and all(default for _, default in found[len(expected) :])


if __name__ == "__main__":
    raise SystemExit(main())
