"""How results are saved as JSON and read again, whoever wrote the file."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hwprune import artifacts
from hwprune.payloads import as_tuples, misfits

if TYPE_CHECKING:
    from pathlib import Path


class Stored:
    """Saving and loading for frozen dataclasses of plain data."""

    kind: ClassVar[str]
    made_by: ClassVar[str]
    schema_version: ClassVar[int] = 1
    later: ClassVar[dict[str, Any]] = {}  # fields that older files lack, and what they then hold

    def save(self, path: Path) -> None:
        """Write the result as JSON, atomically."""
        artifacts.write_json(path, self.kind, self.schema_version, asdict(self))  # type: ignore[call-overload]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result.

        Raises:
            ArtifactError: Missing (names the command that makes it), damaged, or of another kind.
        """
        payload = artifacts.read_json(path, cls.kind, cls.schema_version, cls.made_by)
        try:
            return cls.from_payload(payload)
        except ValueError as error:
            raise artifacts.broken(path, error, cls.made_by) from error

    @classmethod
    def from_payload(cls, payload: Any) -> Self:
        """The result that JSON tells of, whoever wrote it.

        Raises:
            ValueError: The fields are not those that are declared, or do not go together.
        """
        if isinstance(payload, dict):
            payload = cls._completed(payload)
        if wrong := misfits(payload, cls):
            raise ValueError(f"unexpected fields: {', '.join(wrong)}")
        return cls._made(as_tuples(payload))

    @classmethod
    def _completed(cls, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload of a file that may be older than some of the fields."""
        return {**cls.later, **payload}

    @classmethod
    def _made(cls, fields: dict[str, Any]) -> Self:
        """The result of fields whose types were checked."""
        return cls(**fields)
