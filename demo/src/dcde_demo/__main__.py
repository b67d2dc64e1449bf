"""`make demo`: the hub with the testbed, until ctrl-C. Runs outside the world, with the standard library and PyYAML.

python -m dcde_demo --state DIR --port N      stay in the foreground
python -m dcde_demo --state DIR --clean       remove what is kept between starts
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from dcde_testbed import outside
from dcde_testbed.cli import tell
from dcde_testbed.guest import GuestError, load
from dcde_testbed.outside import Options, WorldError

ROOT = Path(__file__).resolve().parents[3]

PEOPLE = """\
Log in with one of the sample institutions; the password of all is  demo

  Pacific Northwest   drivers@pnnl.example   member, all three sites; the sample movies are at BNL
  Oak Ridge           mtanaka@ornl.example   member, one site
  Brookhaven          pnovak@bnl.example     member who has not accepted the policy
  Pacific Northwest   visitor@pnnl.example   not enrolled
  Brookhaven          admin@bnl.example      administrator of the hub
"""


GOOD_TO_KNOW = """\
The certificates come from a local authority: a browser warns once for each name, or trusts {ca}
From another machine: ssh -L PORT:localhost:PORT, with the same port on both sides.
Press ctrl-C to end it; what you did is there again at the next start."""


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="DCDE Hub with three sample sites, on this machine.")
    parser.add_argument("--state", type=Path, required=True, help="what lasts between starts, a 0700 folder")
    parser.add_argument("--port", type=int, default=8765, help="the port of the front door on this machine")
    parser.add_argument("--env", type=Path, default=ROOT / "build/env", help="the built environments")
    parser.add_argument("--clean", action="store_true", help="remove what is kept between starts")
    options = parser.parse_args()
    try:
        return clean(options.state) if options.clean else run(options.state, options.port, options.env)
    except (WorldError, GuestError) as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 1


def run(state: Path, port: int, environments: Path) -> int:
    """Bring everything up, say where it is and who can log in, and stay until ctrl-C."""
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        print("Starting:", flush=True)
        movies = outside.sample_data(state, environments.resolve(), tell)
        guest = load(ROOT / "demo/guest.yaml")
        outside.up(Options(state, port, environments, guest, sample_data=movies), tell)
        print(f"\nDCDE Hub is at  https://hub.localhost:{port}/  ({time.monotonic() - started:.0f} s)\n\n{PEOPLE}")
        print(GOOD_TO_KNOW.format(ca=state / "door/ca.crt"), flush=True)
        outside.wait_until_down(state)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second ctrl-C must not leave half of it running
        outside.down(state)
        print("\nEverything has ended.", flush=True)
        return 0
    outside.down(state)
    print(f"The demo ended by itself; its logs are in {state / 'logs'}.", file=sys.stderr)
    return 1


def clean(state: Path) -> int:
    """Remove what the demo keeps between starts."""
    outside.remove(state)
    print(f"Removed {state}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
