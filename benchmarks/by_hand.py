"""The peer of the three-site run: its certificate, its batch scripts, and the figures of one turn.

The commands are rendered from the same template as ours, and the resources asked for are the same. A batch script notes
when it began and ended; what the script around it needs beyond that is the overhead.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcde.jobs.spec import JobSpec
from dcde.pipelines.template import load_templates
from dcde_demo.sites import descriptor
from dcde_testbed.world import World

from benchmarks.measure import TICKS_PER_S

SCRIPT = Path(__file__).with_name("first_look_by_hand.sh")
DCDE_ID = "dcde1000001"
INSIDE = "/var/lib/dcde"


class ByHand:
    """The script with all it needs, laid down in a private folder of the world's hub.

    Args:
        world: The world, up, with the hub in it.
        parameters: The parameters of First look.
    """

    def __init__(self, world: World, parameters: Mapping[str, Any]) -> None:
        self._world = world
        self._folder = world.inside / "bench"
        self._place = f"{INSIDE}/bench"
        self.steps: dict[str, str] = {}
        """The site of each step, in order."""
        (self._folder / "steps").mkdir(parents=True)
        self._folder.chmod(0o700)
        self._credentials()
        self._batch_scripts(parameters)
        (self._folder / "run.sh").write_bytes(SCRIPT.read_bytes())

    def _site(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._world.facts["sites"][name]
        return found

    def storage(self, site: str) -> str:
        """Return the person's folder at a site."""
        return f"{self._site(site)['storage_root']}/{self._site(site)['mapfile'][DCDE_ID]}"

    def _credentials(self) -> None:
        """Make an ordinary OpenSSH key with a certificate for each site, and a configuration for ssh."""
        run = self._world.run
        run("hub", None, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self._place}/key"])
        hosts, known, places = [], [], []
        for name, site in self._world.facts["sites"].items():
            for end in ("", ".pub"):
                run("hub", None, ["cp", "-p", f"{self._place}/key{end}", f"{self._place}/{name}{end}"])
            authority = f"{INSIDE}/hub/signer/{name}.key"
            sign = ["ssh-keygen", "-q", "-s", authority, "-I", "benchmark", "-n", f"{DCDE_ID}@{name}", "-V", "+60m"]
            run("hub", None, [*sign, f"{self._place}/{name}.pub"])
            host, port = site["hosts"][0], site["port"]
            known.append(f"{host if port == 22 else f'[{host}]:{port}'} {site['host_key']}")
            places.append(f"{name} {self.storage(name)}")
            settings = {
                "HostName": host,
                "Port": port,
                "User": site["mapfile"][DCDE_ID],
                "IdentityFile": f"{self._place}/{name}",
                "IdentitiesOnly": "yes",
                "UserKnownHostsFile": f"{self._place}/known_hosts",
                "StrictHostKeyChecking": "yes",
                "BatchMode": "yes",
                "LogLevel": "ERROR",
                "ControlPath": f"{self._place}/%n.sock",
            }
            hosts.append("\n    ".join([f"Host {name}", *(f"{key} {value}" for key, value in settings.items())]))
        for file, lines in (("ssh_config", hosts), ("known_hosts", known), ("places", places)):
            (self._folder / file).write_text("\n".join([*lines, ""]))

    def _batch_scripts(self, parameters: Mapping[str, Any]) -> None:
        """Render the template's commands for their sites, each step as one batch script."""
        sites = {name: descriptor(name, facts) for name, facts in self._world.facts["sites"].items()}
        plan = load_templates()["first-look"].plan(dict(parameters), first_job=1, version="3.1.3")
        for step in plan.steps:
            site = str(step.default_site)
            self.steps[step.id] = site
            spec = JobSpec.from_step(step, sites[site], project="by-hand", allocation="dcde")
            (self._folder / "steps" / f"{step.id}.sh").write_text(batch_script(step.id, spec))

    def turn(self, project: str, how: str) -> dict[str, Any]:
        """Run the script once in the hub's room, and return wall time, job times, parts and CPU seconds."""
        command = ["bash", f"{self._place}/run.sh", self._place, project, how]
        said = self._world.run("hub", None, command, timeout=600).stdout
        marks = {" ".join(words[:-1]): float(words[-1]) for words in map(str.split, said.splitlines())}
        jobs = {step: self._job_times(site, project, step) for step, site in self.steps.items()}
        wall = marks["end"] - marks["begin"]
        job_s = sum(ended - started for started, ended in jobs.values())
        parts = {
            "inputs": sum(marks[f"submit {step}"] - marks[f"before {step}"] for step in jobs),
            "submission until the job runs": sum(jobs[step][0] - marks[f"submit {step}"] for step in jobs),
            "end of the job until it is noticed": sum(marks[f"after {step}"] - jobs[step][1] for step in jobs),
        }
        return {
            "wall_s": wall,
            "job_s": job_s,
            "application_s": job_s,
            "overhead_s": wall - job_s,
            "cpu_s": marks["cpu"] / TICKS_PER_S,
            "parts_s": parts,
            "steps_s": {step: {"application": ended - started} for step, (started, ended) in jobs.items()},
            "classes": class_averages(self._world, f"{self.storage('anl-lcrc')}/projects/{project}"),
        }

    def _job_times(self, site: str, project: str, step: str) -> tuple[float, float]:
        folder = f"{self.storage(site)}/projects/{project}"
        said = self._world.run(site, "login", ["cat", f"{folder}/{step}.started", f"{folder}/{step}.ended"]).stdout
        started, ended = map(float, said.split())
        return started, ended


def class_averages(world: World, folder: str) -> str:
    """Return name and size of the last class averages in a project folder at the third site."""
    find = f'cd "{folder}" && ls Class2D/job*/run_it*_classes.mrcs | tail -1 | xargs stat -c "%n %s"'
    return world.run("anl-lcrc", "login", ["sh", "-c", find]).stdout.strip()


def batch_script(step: str, spec: JobSpec) -> str:
    """Return a step as a batch script that is submitted from the project folder."""
    asked = spec.resources
    options = [
        f"--job-name={step}",
        f"--output={step}.log",
        f"--nodes={asked.nodes}",
        f"--ntasks-per-node={asked.cores}",
        f"--mem={asked.memory_mb}",
        f"--time={asked.walltime_minutes}",
        f"--partition={spec.partition}",
        f"--account={spec.allocation}",
    ]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        f"echo $EPOCHREALTIME >{step}.started",
        *spec.setup,
        "set -e",
        *(f"export {name}={shlex.quote(value)}" for name, value in spec.environment.items()),
        *(shlex.join(command) for command in spec.commands),
        f"echo $EPOCHREALTIME >{step}.ended",
    ]
    return "\n".join([*lines, ""])
