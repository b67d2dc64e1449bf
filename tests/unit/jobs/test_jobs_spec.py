"""From a step's plan and a site's descriptor to the files of a job's record."""

import json
import subprocess

import pytest
from dcde.errors import InvalidParameter, UnknownName
from dcde.jobs.spec import JobSpec
from dcde.pipelines.model import Check, Resources, StepPlan
from dcde.pipelines.template import load_templates
from dcde_models.sites import SiteDescriptor

SITE = {
    "name": "bnl-sdcc",
    "title": "BNL SDCC",
    "contact": "help@bnl.example",
    "ssh": {"hosts": ["login.example"], "host_keys": ["ssh-ed25519 AAAA"]},
    "scheduler": {
        "nodes": 2,
        "partitions": [
            {
                "name": "batch",
                "default": True,
                "max_walltime_minutes": 120,
                "cores_per_node": 2,
                "memory_mb_per_node": 4000,
            },
            {"name": "debug", "max_walltime_minutes": 10, "cores_per_node": 2, "memory_mb_per_node": 4000},
        ],
    },
    "storage": {"root": "/hpcgpfs01/work/dcde"},
    "worker_interpreter": "/opt/dcde/site/bin/python",
    "environment": {"init": ["source /etc/profile.d/modules.sh"]},
    "applications": {
        "relion": {
            "version": "3.1.3",
            "setup": ["module load relion/3.1.3"],
            "programs": {"ctffind": "/opt/bin/ctffind4"},
        }
    },
}


@pytest.fixture
def site():
    """A site's descriptor."""
    return SiteDescriptor.model_validate(SITE)


def plan(**more):
    given = {
        "id": "ctffind",
        "title": "CTF",
        "job_type": "relion.ctffind",
        "job_dir": "CtfFind/job003",
        "commands": [["relion_run_ctffind", "--ctffind_exe", "{program:ctffind}"], ["{python}", "{record}/x.py"]],
        "environment": {"RELION_SHELL": "bash"},
        "outputs": ["CtfFind/job003"],
        "checks": [Check(star="CtfFind/job003/micrographs_ctf.star", table="micrographs")],
        "resources": Resources(cores=2, memory_mb=900, walltime_minutes=20),
    }
    return StepPlan.model_validate(given | more)


def test_everything_the_job_needs_is_in_its_record(site):
    spec = JobSpec.from_step(plan(), site, project="demo", allocation="dcde")
    files = spec.files("demo-r1-ctffind-a1")
    job = json.loads(files["job.json"])
    assert job["commands"][0] == ["relion_run_ctffind", "--ctffind_exe", "/opt/bin/ctffind4"]
    assert job["commands"][1] == ["/opt/dcde/site/bin/python", "{record}/x.py"]
    assert job["setup"] == ["source /etc/profile.d/modules.sh", "module load relion/3.1.3"]
    assert job["environment"] == {"RELION_SHELL": "bash"}
    assert (job["storage_root"], job["project"], job["walltime_minutes"]) == ("/hpcgpfs01/work/dcde", "demo", 20)
    checks = json.loads(files["spec.json"])
    assert checks["checks"][0]["star"] == "CtfFind/job003/micrographs_ctf.star"
    assert checks["job_dir"] == "CtfFind/job003"
    assert "#SBATCH --partition=batch" in files["batch.sh"]
    assert "#SBATCH --account=dcde" in files["batch.sh"]
    assert files["batch.sh"].endswith("exec /opt/dcde/site/bin/python job.py\n")
    assert spec.batch_options("demo-r1-ctffind-a1").memory_mb == 900
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("name", ["job.py", "report.py"])
def test_what_is_pushed_is_understood_by_old_pythons(site, name):
    text = JobSpec.from_step(plan(), site, project="demo").files("k")[name]
    check = "import ast, sys; ast.parse(sys.stdin.read(), feature_version=(3, 9))"
    subprocess.run(["/usr/bin/python3", "-c", check], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"application": "cryosparc"}, UnknownName, "BNL SDCC has no cryosparc"),
        ({"commands": [["{program:topaz}"]]}, UnknownName, "names no program topaz"),
        ({"resources": Resources(walltime_minutes=121)}, InvalidParameter, "asks for 121 minutes.*gives 120"),
        ({"resources": Resources(cores=3)}, InvalidParameter, "asks for 3 cores a node.*gives 2"),
        ({"resources": Resources(memory_mb=5000)}, InvalidParameter, "asks for 5000 MB a node.*gives 4000"),
        ({"resources": Resources(gpus=1)}, InvalidParameter, "asks for 1 GPUs a node.*gives 0"),
        ({"resources": Resources(nodes=3)}, InvalidParameter, "asks for 3 nodes.*gives 2"),
    ],
)
def test_what_the_site_cannot_do_is_said_before_anything_is_submitted(site, asked, error, said):
    with pytest.raises(error, match=said) as caught:
        JobSpec.from_step(plan(**asked), site, project="demo")
    assert caught.value.remedy
    assert "ctffind" in caught.value.where


def test_partitions(site):
    assert (
        JobSpec.from_step(plan(resources=Resources(walltime_minutes=5)), site, project="p", partition="debug").partition
        == "debug"
    )
    with pytest.raises(UnknownName, match="no partition 'gpu'") as caught:
        JobSpec.from_step(plan(), site, project="p", partition="gpu")
    assert "batch, debug" in caught.value.remedy


@pytest.mark.parametrize("project", ["../x", "a/b", "", "a b", "-a"])
def test_unsafe_project_names(site, project):
    with pytest.raises(ValueError, match="project"):
        JobSpec.from_step(plan(), site, project=project)


def test_every_step_of_every_bundled_template_becomes_a_job(site):
    for template in load_templates().values():
        for step in template.plan({}, first_job=1).steps:
            spec = JobSpec.from_step(step, site, project="demo")
            assert set(spec.files(f"demo-r1-{step.id}-a1")) == {
                "job.json",
                "job.py",
                "batch.sh",
                "spec.json",
                "report.py",
            }
