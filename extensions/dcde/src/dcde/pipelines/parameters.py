"""What a person fills in: typed parameters with unit, range and default, their check, and the form's schema."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, Self

from dcde_models.documents import Document
from pydantic import Field, model_validator

from dcde.errors import InvalidParameter
from dcde.pipelines.formula import Value
from dcde.pipelines.model import Identifier

_TEXT = re.compile(r"[A-Za-z0-9_.,:=@%+ -]{0,200}\Z")
_SITE_PATH = re.compile(r"(?P<site>[a-z][a-z0-9-]{0,62}):(?P<path>[^\x00-\x1f\x7f/][^\x00-\x1f\x7f]{0,999})\Z")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

Kind = Literal["number", "integer", "boolean", "text", "choice", "file", "files"]
_SCHEMA_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean"}


class Parameter(Document):
    """One field of a template's form.

    A `file` is `site:path`, the path relative to the person's own folder at the site; `files` may hold * ? [ ].
    A parameter without default must be given, unless `required` is false: then it is None when it is not given, and an
    empty text means None even when there is a default.
    """

    name: Identifier
    title: str = Field(min_length=1, max_length=80)
    type: Kind
    unit: str = Field("", max_length=20)
    group: str = Field("General", max_length=40)
    help: str = Field("", max_length=600)
    advanced: bool = False
    required: bool = True
    default: bool | int | float | str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        numeric = self.type in ("number", "integer")
        if not numeric and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"{self.name}: only numbers have a minimum and a maximum")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"{self.name}: the minimum is above the maximum")
        if (self.type == "choice") != bool(self.choices):
            raise ValueError(f"{self.name}: a choice, and nothing else, has choices")
        if self.default is not None:
            try:
                self.check(self.default)
            except InvalidParameter as error:
                raise ValueError(f"the default of {self.name} is not allowed: {error.message}") from error
        return self

    def check(self, value: Any) -> Value:
        """Return the value in the parameter's own type; texts such as "1.5" and "yes" are understood as well.

        Raises InvalidParameter that names the field, the value, what is allowed and the unit.
        """
        if value == "" and not self.required:
            return None
        if value is None or (value == "" and self.type != "text"):
            value = self.default
        if value is None or (value == "" and self.default is None):
            if self.required:
                raise self._wrong("is missing")
            return None
        if self.type in ("number", "integer"):
            return self._number(value)
        if self.type == "boolean":
            found = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
            if found is None:
                raise self._wrong(f"is {_shown(value)}; it must be true or false")
            return bool(found)
        if not isinstance(value, str):
            raise self._wrong(f"is {_shown(value)}; it must be a text")
        if self.type == "choice":
            if value not in self.choices:
                raise self._wrong(f"is {_shown(value)}; it must be one of {', '.join(self.choices)}")
        elif self.type == "text":
            if not _TEXT.match(value):
                raise self._wrong(f"is {_shown(value)}; only letters, digits, blanks and _ . , : = @ % + - are allowed")
        else:
            self._files(value)
        return value

    def form_field(self, order: int) -> dict[str, Any]:
        """Return the JSON Schema of the field; `x-` keys tell the form its place, group, unit and kind."""
        found: dict[str, Any] = {
            "title": self.title,
            "type": _SCHEMA_TYPES.get(self.type, "string"),
            "x-order": order,
            "x-group": self.group,
            "x-kind": self.type,
            "x-advanced": self.advanced,
        }
        optional = {
            "description": self.help or None,
            "default": self.default,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "enum": self.choices or None,
            "x-unit": self.unit or None,
        }
        return found | {key: value for key, value in optional.items() if value is not None}

    def _wrong(self, what: str) -> InvalidParameter:
        remedy = f"Correct the field {self.title!r}."
        return InvalidParameter(f"{self.title} {what}.", where=self.name, remedy=remedy)

    def _number(self, value: Any) -> Value:
        kind = "a whole number" if self.type == "integer" else "a number"
        try:
            number = None if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = None
        if number is None or not math.isfinite(number) or (self.type == "integer" and number != int(number)):
            raise self._wrong(f"is {_shown(value)}; it must be {kind}{self._range()}")
        low, high = self.minimum, self.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            raise self._wrong(f"is {_plain(number)}{self._in_unit()}; it must be {kind}{self._range()}")
        return int(number) if self.type == "integer" else number

    def _in_unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def _range(self) -> str:
        low, high, unit = self.minimum, self.maximum, self._in_unit()
        if low is not None and high is not None:
            return f" from {_plain(low)} to {_plain(high)}{unit}"
        if low is not None:
            return f" of at least {_plain(low)}{unit}"
        return f" of at most {_plain(high)}{unit}" if high is not None else ""

    def _files(self, value: str) -> None:
        found = _SITE_PATH.match(value)
        if not found:
            raise self._wrong(f"is {_shown(value)}; it must be a site and a path, such as bnl-sdcc:movies/*.mrcs")
        if ".." in found["path"].split("/"):
            raise self._wrong(f"is {_shown(value)}; the path must stay below your own folder at the site")
        if self.type == "file" and re.search(r"[*?\[\]]", found["path"]):
            raise self._wrong(f"is {_shown(value)}; it must be one file, without wildcards")


def split_site_path(value: str) -> tuple[str, str]:
    """Return site and path of a checked value of a `file` or `files` parameter."""
    site, _, path = value.partition(":")
    return site, path


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(number: float | None) -> str:
    return "" if number is None else f"{number:g}"
