"""Names of a person's own files as RELION may see them.

RELION hands file names to shells (relion_run_ctffind writes and runs a script), so that a name is either plain or
refused.
"""

from __future__ import annotations

import fnmatch
import re

from dcde.errors import InvalidParameter
from dcde.pipelines.model import RawFiles

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
MOVIE_ENDINGS = (".mrc", ".mrcs", ".tif", ".tiff")
GAIN_ENDINGS = (".mrc", ".tif", ".tiff")


def movie_glob(raw: RawFiles) -> str:
    """Return the glob of the movies in the project, such as `Movies/*.mrcs`; InvalidParameter for other files."""
    name = raw.pattern.rsplit("/", 1)[-1]
    ending = next((ending for ending in MOVIE_ENDINGS if name.lower().endswith(ending)), None)
    if ending is None:
        raise InvalidParameter(
            f"{name!r:.80} does not say what kind of movies these are",
            where="movies",
            remedy=f"Let the pattern end in one of {', '.join(MOVIE_ENDINGS)}, such as movies/*.mrcs.",
        )
    return f"{raw.target}/*{name[-len(ending) :]}"


def gain_path(gain: RawFiles, movies: RawFiles | None) -> str:
    """Return the path of the gain reference in the project; InvalidParameter when it cannot be one."""
    name = gain.pattern.rsplit("/", 1)[-1]
    if not SAFE_NAME.match(name) or not name.lower().endswith(GAIN_ENDINGS):
        raise InvalidParameter(
            f"{name!r:.80} cannot be a gain reference",
            where="gain",
            remedy=f"Its name must end in {', '.join(GAIN_ENDINGS)} and hold letters, digits and . _ + - only.",
        )
    if movies and gain.site == movies.site and fnmatch.fnmatchcase(gain.pattern, movies.pattern):
        raise InvalidParameter(
            f"{gain.pattern!r:.80} is also one of the movies {movies.pattern!r:.80}",
            where="gain",
            remedy="Choose the movies by a narrower pattern, or keep the gain reference in another folder.",
        )
    return f"{gain.target}/{name}"
