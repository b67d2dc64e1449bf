from pathlib import Path

import pytest
from dcde_models.schemas import PUBLISHED, schema_text

FOLDER = Path(__file__).parents[3] / "docs/reference/schemas"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_schema_is_that_of_the_code(name):
    assert (FOLDER / name).read_text() == schema_text(PUBLISHED[name]), "run `make schemas`"
