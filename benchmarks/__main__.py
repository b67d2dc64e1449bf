"""`python -m benchmarks [NAME...]`: measure, write benchmarks/results/NAME.json and docs/reference/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from benchmarks import measure, table

NAMES = ("three_sites", "panel", "start", "kernel")


def main() -> int:
    """Run the benchmarks asked for, all by default, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--repeat", type=int, metavar="N", help="turns of each; by default what the benchmark says")
    parser.add_argument("--table", action="store_true", help="only write the table from the results that are there")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in [] if options.table else options.names or NAMES:
        run(name, options.repeat)
    print(f"Written: {table.write()}")
    return 0


def run(name: str, repeat: int | None) -> None:
    """Run one benchmark, say what it found, and write its result file."""
    module = importlib.import_module(f"benchmarks.{name}")
    turns = max(1, repeat or module.REPEAT)
    print(f"{name}: {turns} turns", flush=True)
    others = measure.busy_now()
    began = time.monotonic()
    with measure.Load() as load:
        result = module.run(turns)
    path = measure.write(result, load, others, time.monotonic() - began)
    for figure in result.figures:
        compared = f", {figure.peer_name} {figure.peer:.4g}, ratio {figure.ratio:.3g}" if figure.peer else ""
        print(f"  {figure.title}: {figure.ours:.4g} {figure.unit}{compared}")
    print(f"  {path} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
