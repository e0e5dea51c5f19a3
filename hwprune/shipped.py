"""What comes with hwprune beside its code: target profiles and latency tables."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_folders(kind: str) -> list[Path]:
    """Folders that hold what is shipped, those that exist: the checkout's, then the wheel's.

    Args:
        kind: `profiles` or `lut`.
    """
    checkout = _PACKAGE.parent
    found = [_PACKAGE / "share" / kind]
    if (checkout / "pyproject.toml").is_file():  # else `lut` beside the package is anybody's
        found.insert(0, checkout / kind)
    return [folder for folder in found if folder.is_dir()]


def shipped_tables() -> dict[str, Path]:
    """Name (`DEVICE/PROFILE/MODEL_SIZE`) -> folder of each shipped latency table."""
    return {
        path.parent.relative_to(root).as_posix(): path.parent
        for root in reversed(shipped_folders("lut"))
        for path in sorted(root.rglob("table.json"))
    }
