"""One function for each job type: its commands, exactly the files it opens, what it must deliver, and its pictures.

Commands are argument lists and run in the project folder, as RELION expects. Inputs name only what the program opens,
so that nothing else is moved between sites: where one program reads micrographs and another only their power spectra,
the globs tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable

from dcde.errors import InvalidParameter
from dcde.pipelines.model import Check, InputRef, Picture, StepPlan
from dcde.pipelines.relion.dialect import dialect
from dcde.pipelines.relion.names import gain_path, movie_glob
from dcde.pipelines.renderer import StepRequest

# relion_run_ctffind runs a script with csh unless told otherwise, and csh is often not there: every micrograph then
# fails, with exit code 0. One thread in numerical libraries: RELION has its own.
ENVIRONMENT = {"RELION_SHELL": "bash", "OMP_NUM_THREADS": "1"}
LARGEST_BOX, SMALLEST_BOX = 1024, 16


class Job:
    """What the functions below share: the job folder, settings as options, and the assembling of the plan."""

    def __init__(self, request: StepRequest, folder: str) -> None:
        self.request = request
        self.folder = f"{folder}/job{request.number:03d}"
        self.dialect = dialect(request.version)

    def number(self, name: str) -> float:
        """Return a setting that must be a number; ValueError names the setting otherwise."""
        value = self.request.settings.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"setting {name!r} must be a number, not {value!r}")
        return value

    def text(self, name: str) -> str:
        """Return a numeric setting as an option's value."""
        return f"{self.number(name):.10g}"

    def whole(self, name: str) -> int:
        """Return a setting that must be a whole number."""
        value = self.number(name)
        if value != int(value):
            raise ValueError(f"setting {name!r} must be a whole number, not {value!r}")
        return int(value)

    def source(self, role: str) -> StepPlan:
        """Return the step that delivers the input `role`."""
        if role not in self.request.inputs:
            raise ValueError(f"the step needs an input {role!r}")
        return self.request.inputs[role]

    def micrographs_star(self) -> tuple[StepPlan, str]:
        """Return the step and the table that list the micrographs: with their CTF where the role `ctf` is given."""
        if "ctf" in self.request.inputs:
            return self.source("ctf"), f"{self.source('ctf').job_dir}/micrographs_ctf.star"
        return self.source("micrographs"), f"{self.source('micrographs').job_dir}/corrected_micrographs.star"

    def plan(
        self,
        *programs: list[str],
        inputs: list[InputRef],
        outputs: list[str],
        checks: list[Check],
        pictures: list[Picture] | None = None,
    ) -> StepPlan:
        """Return the step: the folder is made, then the programs run in turn and leave RELION's own marks in it."""
        request = self.request
        return StepPlan(
            id=request.id,
            title=request.title,
            job_type=request.job_type,
            job_dir=self.folder,
            default_site=request.site,
            after=request.after,
            inputs=inputs,
            commands=[
                ["mkdir", "-p", self.folder],
                *([*program, "--pipeline_control", f"{self.folder}/"] for program in programs),
            ],
            application="relion",
            environment=ENVIRONMENT,
            outputs=[f"{self.folder}/{output}" for output in outputs],
            checks=checks,
            pictures=pictures or [],
            resources=request.resources,
        )


def micrographs(step: StepPlan) -> list[str]:
    """Return globs for the micrographs of a motion correction without the power spectra, which end in `_PS.mrc`.

    A glob cannot say "not", so these three say it letter by letter; they stay within the alphabet of safe names.
    """
    movies = f"{step.job_dir}/Movies"
    return [
        f"{movies}/*[0-9A-RT-Za-z._+-].mrc",
        f"{movies}/*[0-9A-OQ-Za-z._+-]S.mrc",
        f"{movies}/*[0-9A-Za-z.+-]PS.mrc",
    ]


def import_movies(request: StepRequest) -> StepPlan:
    """Enter the movies and what the microscope was set to into RELION's books."""
    job = Job(request, "Import")
    movies = raw_movies(request)
    return job.plan(
        import_program(job, movies),
        inputs=[InputRef(patterns=[movies])],
        outputs=["movies.star"],
        checks=import_checks(job),
    )


def raw_movies(request: StepRequest) -> str:
    """Return the glob of the person's movies in the project."""
    if "movies" not in request.raw:
        raise InvalidParameter("no movies were chosen", where="movies", remedy="Choose movies by a site and a pattern.")
    return movie_glob(request.raw["movies"])


def raw_gain(request: StepRequest) -> list[str]:
    """Return the path of the person's gain reference in the project, if there is one."""
    return [gain_path(request.raw["gain"], request.raw.get("movies"))] if "gain" in request.raw else []


def import_program(job: Job, movies: str) -> list[str]:
    """Return the import, whose table goes into the job's folder."""
    return [
        *("relion_import", "--do_movies", "--optics_group_name", "opticsGroup1"),
        *("--angpix", job.text("pixel_size"), "--kV", job.text("voltage"), "--Cs", job.text("cs")),
        *("--Q0", job.text("amplitude_contrast"), "--beamtilt_x", "0", "--beamtilt_y", "0"),
        *("--i", movies, "--odir", f"{job.folder}/", "--ofile", "movies.star"),
    ]


def import_checks(job: Job) -> list[Check]:
    """Return what an import promises."""
    star = f"{job.folder}/movies.star"
    return [
        Check(star=star, table="optics", finite=["rlnMicrographOriginalPixelSize"]),
        Check(star=star, table="movies"),
    ]


def motion_correction(request: StepRequest) -> StepPlan:
    """Align the frames of each imported movie and sum them, with RELION's own implementation."""
    job = Job(request, "MotionCorr")
    imported, gain = job.source("movies"), raw_gain(request)
    movies = f"{imported.job_dir}/movies.star"
    raw = [pattern for ref in imported.inputs for pattern in ref.patterns]
    check, picture = motion_results(job, movies)
    return job.plan(
        motion_program(job, movies, gain),
        inputs=[InputRef(step=imported.id, patterns=[movies]), InputRef(patterns=[*raw, *gain])],
        outputs=["corrected_micrographs.star", "Movies/*.mrc", "Movies/*.star"],
        checks=[check],
        pictures=[picture],
    )


def import_and_motion_correction(request: StepRequest) -> StepPlan:
    """Import and motion correction as one job, for pipelines that are to have few steps."""
    job = Job(request, "MotionCorr")
    raw, gain = raw_movies(request), raw_gain(request)
    movies = f"{job.folder}/movies.star"
    check, picture = motion_results(job, movies)
    return job.plan(
        import_program(job, raw),
        motion_program(job, movies, gain),
        inputs=[InputRef(patterns=[raw, *gain])],
        outputs=["movies.star", "corrected_micrographs.star", "Movies/*.mrc", "Movies/*.star"],
        checks=[*import_checks(job), check],
        pictures=[picture],
    )


def motion_program(job: Job, movies: str, gain: list[str]) -> list[str]:
    """Return the motion correction of the movies in the table `movies`."""
    return [
        *("relion_run_motioncorr", "--use_own", "--i", movies, "--o", f"{job.folder}/"),
        *("--first_frame_sum", "1", "--last_frame_sum", "-1", "--j", str(job.request.resources.cores)),
        *("--bin_factor", "1", "--bfactor", "150", "--patch_x", job.text("patches"), "--patch_y", job.text("patches")),
        *("--dose_weighting", "--dose_per_frame", job.text("dose_per_frame"), "--preexposure", job.text("preexposure")),
        *("--grouping_for_ps", str(max(1, round(4 / max(job.number("dose_per_frame"), 0.01))))),
        *(["--gainref", gain[0]] if gain else []),
    ]


def motion_results(job: Job, movies: str) -> tuple[Check, Picture]:
    """Return what a motion correction promises, and its picture."""
    star = f"{job.folder}/corrected_micrographs.star"
    return (
        Check(star=star, table="micrographs", min_rows=f"rows({movies})", finite=["rlnAccumMotionTotal"]),
        Picture(
            name="micrograph",
            title="Corrected micrograph",
            kind="micrograph",
            source={"star": star, "done": f"{job.folder}/Movies/*.star", "of": movies},
        ),
    )


def ctf_estimation(request: StepRequest) -> StepPlan:
    """Estimate defocus and astigmatism with CTFFIND from the power spectra that motion correction wrote."""
    job, corrected = Job(request, "CtfFind"), Job(request, "CtfFind").source("micrographs")
    stars = f"{corrected.job_dir}/corrected_micrographs.star"
    program = [
        *("relion_run_ctffind", "--i", stars, "--o", f"{job.folder}/"),
        *("--ctffind_exe", "{program:ctffind}", "--is_ctffind4", "--use_given_ps", "--fast_search", "--ctfWin", "-1"),
        *("--Box", "512", "--ResMin", job.text("resolution_low"), "--ResMax", job.text("resolution_high")),
        *("--dFMin", job.text("defocus_min"), "--dFMax", job.text("defocus_max"), "--FStep", "500", "--dAst", "100"),
    ]
    star = f"{job.folder}/micrographs_ctf.star"
    finite = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution"]
    return job.plan(
        program,
        inputs=[InputRef(step=corrected.id, patterns=[stars, f"{corrected.job_dir}/Movies/*_PS.mrc"])],
        outputs=["micrographs_ctf.star", "Movies/*.ctf"],
        checks=[Check(star=star, table="micrographs", finite=finite)],
        pictures=[
            Picture(
                name="power_spectrum",
                title="Power spectrum (right) and fitted CTF (left)",
                kind="power_spectrum",
                source={"star": star, "done": f"{job.folder}/Movies/*.ctf", "of": stars},
            )
        ],
    )


def autopick_log(request: StepRequest) -> StepPlan:
    """Pick particles as blobs of the given size (Laplacian of Gaussian)."""
    job = Job(request, "AutoPick")
    corrected = job.source("micrographs")
    listed, stars = job.micrographs_star()
    program = [
        *("relion_autopick", "--i", stars, "--odir", f"{job.folder}/", "--pickname", "autopick", "--LoG"),
        *("--LoG_diam_min", job.text("diameter_min"), "--LoG_diam_max", job.text("diameter_max")),
        *(
            "--LoG_adjust_threshold",
            job.text("threshold"),
            "--LoG_upper_threshold",
            "5",
            "--shrink",
            "0",
            "--lowpass",
            "20",
        ),
    ]
    picks = f"{job.folder}/Movies/*_autopick.star"
    return job.plan(
        program,
        inputs=[
            InputRef(step=listed.id, patterns=[stars]),
            InputRef(step=corrected.id, patterns=micrographs(corrected)),
        ],
        outputs=["summary.star", "Movies/*_autopick.star"],
        checks=[Check(star=picks, table="", finite=["rlnCoordinateX", "rlnCoordinateY"])],
        pictures=[
            Picture(
                name="picks",
                title="Micrograph with picks",
                kind="micrograph_picks",
                source={
                    "star": stars,
                    "picks": job.folder,
                    "suffix": "_autopick.star",
                    "diameter": job.text("diameter_max"),
                    "done": picks,
                    "of": stars,
                },
            )
        ],
    )


def extraction(request: StepRequest) -> StepPlan:
    """Cut out the picked particles, scale them down to the working pixel size, and normalize them."""
    job = Job(request, "Extract")
    corrected, picked = job.source("micrographs"), job.source("picks")
    box, scaled = job.whole("box"), job.whole("scaled_box")
    if not SMALLEST_BOX <= scaled <= box <= LARGEST_BOX or box % 2 or scaled % 2:
        raise InvalidParameter(
            f"the particles would be cut out as {box} pixels and scaled to {scaled}, which cannot be right",
            where="pixel_size",
            remedy=f"Check pixel size and diameter: the box must be even, {SMALLEST_BOX} to {LARGEST_BOX} pixels.",
        )
    if not job.dialect.picks_by_suffix:
        raise ValueError(f"extraction is not known for RELION {job.dialect.version}")
    (listed, stars), star = job.micrographs_star(), f"{job.folder}/particles.star"
    program = [
        *("relion_preprocess", "--i", stars, "--coord_dir", f"{picked.job_dir}/", "--coord_suffix", "_autopick.star"),
        *("--part_star", star, "--part_dir", f"{job.folder}/", "--extract", "--extract_size", str(box)),
        *(["--scale", str(scaled)] if scaled < box else []),
        *("--norm", "--bg_radius", str(job.whole("background_radius")), "--white_dust", "-1", "--black_dust", "-1"),
        "--invert_contrast",
    ]
    finite = ["rlnCoordinateX", "rlnCoordinateY", *(["rlnDefocusU"] if "ctf" in request.inputs else [])]
    return job.plan(
        program,
        inputs=[
            InputRef(step=listed.id, patterns=[stars]),
            InputRef(step=corrected.id, patterns=micrographs(corrected)),
            InputRef(step=picked.id, patterns=[f"{picked.job_dir}/Movies/*_autopick.star"]),
        ],
        outputs=["particles.star", "Movies/*.mrcs"],
        checks=[Check(star=star, table="particles", finite=finite)],
    )


def classification_2d(request: StepRequest) -> StepPlan:
    """Sort the particles into classes and average each: the first picture of the protein."""
    job, extracted = Job(request, "Class2D"), Job(request, "Class2D").source("particles")
    particles, last = f"{extracted.job_dir}/particles.star", f"run_it{job.whole('iterations'):03d}"
    program = [
        *("relion_refine", "--o", f"{job.folder}/run", "--i", particles, "--iter", str(job.whole("iterations"))),
        *("--K", str(job.whole("classes")), "--tau2_fudge", job.text("regularisation"), "--ctf", "--pad", "2"),
        *("--particle_diameter", job.text("mask_diameter"), "--flatten_solvent", "--zero_mask", "--oversampling", "1"),
        *("--psi_step", job.text("psi_step"), "--offset_range", job.text("offset_range"), "--offset_step", "2"),
        *("--strict_highres_exp", job.text("resolution_limit"), "--maxsig", str(job.whole("most_significant"))),
        *("--pool", "30", "--j", str(request.resources.cores), "--random_seed", str(job.whole("random_seed"))),
        *job.dialect.class2d,
    ]
    return job.plan(
        program,
        inputs=[InputRef(step=extracted.id, patterns=[particles, f"{extracted.job_dir}/Movies/*.mrcs"])],
        outputs=[
            *(f"{last}_{part}.star" for part in ("data", "model", "optimiser", "sampling")),
            f"{last}_classes.mrcs",
        ],
        checks=[
            Check(star=f"{job.folder}/{last}_data.star", table="particles", min_rows=f"rows({particles})"),
            # The estimated resolution of a class may be infinite when it is nearly empty; its share is always a number.
            Check(star=f"{job.folder}/{last}_model.star", table="model_classes", finite=["rlnClassDistribution"]),
        ],
        pictures=[
            Picture(name="classes", title="Class averages", kind="class_montage", source={"root": f"{job.folder}/run"})
        ],
    )


BUILDERS: dict[str, Callable[[StepRequest], StepPlan]] = {
    "relion.import.movies": import_movies,
    "relion.motioncorr.own": motion_correction,
    "relion.motioncorr.import": import_and_motion_correction,
    "relion.ctffind.ctffind4": ctf_estimation,
    "relion.autopick.log": autopick_log,
    "relion.extract": extraction,
    "relion.class2d.em": classification_2d,
}
