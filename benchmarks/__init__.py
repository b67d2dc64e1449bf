"""Measurements of DCDE Hub beside a named peer in the same run; `python -m benchmarks [NAME...]`.

Nothing here is a test: a machine that is busy makes worse figures and no failures. Figures are ratios to the peer,
medians of several turns that alternate with the peer's, and stand in `results/` with the machine and its load.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = Path(os.environ.get("DCDE_BENCH_ENVIRONMENTS", ROOT / "build/env")).resolve()
"""The environments that are measured; another place for those of another build, or for a copy that stays as it is."""

# The sources of this clone, as the tests use them (pyproject.toml, pythonpath).
_SOURCES = ("hub/src", "extensions/models/src", "extensions/dcde/src", "testbed/src", "demo/src", ".")
sys.path[:0] = [str(ROOT / folder) for folder in _SOURCES if str(ROOT / folder) not in sys.path]
