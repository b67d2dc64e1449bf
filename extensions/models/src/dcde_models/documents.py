"""Reading the YAML files that people write into models, with messages that help them mend the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from dcde_models.errors import InvalidDocument

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""A name that can be typed: lower case letters, digits and hyphens, beginning with a letter."""

DcdeId = Annotated[str, StringConstraints(pattern=r"^dcde[0-9]{7}$")]
"""A DCDE id, as the registry gives it: `dcde` and seven digits."""


class Document(BaseModel):
    """A model of a file that people write: nothing unknown in it, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_yaml(cls, text: str, origin: str = "the document") -> Self:
        """Return the model that the YAML text describes.

        Args:
            text: The YAML text.
            origin: What the text is called in error messages, such as its file name.

        Raises:
            InvalidDocument: The text is no YAML, or a field is missing, unknown or has a wrong value.
        """
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidDocument(f"{origin} is not valid YAML: {error}") from error
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = [f"  {_place(e['loc'])}{e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
            raise InvalidDocument("\n".join([f"{origin} is not valid:", *lines])) from error

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return the model that the file at `path` describes; see `from_yaml`."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidDocument(f"{path} cannot be read: {error.strerror}") from error
        return cls.from_yaml(text, origin=str(path))


def _place(location: tuple[int | str, ...]) -> str:
    """Return the field that an error is about, as a beginning of its line; nothing when it is about the whole."""
    return f"{'.'.join(map(str, location))}: " if location else ""
