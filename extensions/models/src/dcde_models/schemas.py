"""The published JSON Schemas of the files that people write: `python -m dcde_models.schemas FOLDER` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dcde_models.capabilities import CapabilityDocument
from dcde_models.documents import Document
from dcde_models.sites import SiteDescriptor

PUBLISHED: dict[str, type[Document]] = {
    "site-descriptor.schema.json": SiteDescriptor,
    "capability-document.schema.json": CapabilityDocument,
}


def schema_text(document: type[Document]) -> str:
    """Return the JSON Schema (draft 2020-12) of a document, as it is published."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **document.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(folder: str) -> None:
    """Write every published schema into a folder."""
    for name, document in PUBLISHED.items():
        (Path(folder) / name).write_text(schema_text(document), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
