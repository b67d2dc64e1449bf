"""What differs between RELION's versions in the commands that templates need.

Only versions that these commands were run with are in the table. RELION takes an unknown option for a warning and
goes on as if it were not there, so that a command for another version may do something else than it says: no guesses
here.
"""

from __future__ import annotations

from dataclasses import dataclass

from dcde.errors import InvalidParameter


@dataclass(frozen=True)
class Dialect:
    """The choices of one version.

    Attributes:
        version: Major and minor number.
        picks_by_suffix: Picks are found by folder and suffix (3.1); later versions name them in one list.
        class2d: Further options of 2D classification.
    """

    version: str
    picks_by_suffix: bool
    class2d: tuple[str, ...] = ()


DIALECTS = {
    "3.1": Dialect("3.1", picks_by_suffix=True, class2d=("--dont_combine_weights_via_disc", "--norm", "--scale")),
}


def dialect(version: str | None) -> Dialect:
    """Return the dialect for a version such as "3.1.3" (None: the newest known); else InvalidParameter."""
    if version is None:
        return DIALECTS[max(DIALECTS, key=lambda known: [int(part) for part in known.split(".")])]
    found = DIALECTS.get(".".join(version.split(".")[:2]))
    if found is None:
        raise InvalidParameter(
            f"commands for RELION {version} are not known",
            where="relion",
            remedy=f"Choose a site that has RELION {' or '.join(DIALECTS)}.",
        )
    return found
