"""Machines and services that die, and come back."""

from __future__ import annotations

import time
from collections.abc import Callable

from dcde_testbed.world import World


def eventually(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def job_field(world: World, site: str, job: str, name: str) -> str:
    shown = world.run(site, "login", ["scontrol", "-o", "show", "job", job]).stdout
    return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)[name]


def test_a_node_dies_alone_its_job_fails_once_and_the_node_comes_back(world: World) -> None:
    site = "ornl-cades"
    command = ["sbatch", "--parsable", "--nodelist=n2", "--wrap", "echo started >> $HOME/starts; sleep 600"]
    job = world.run(site, "login", command, user="d7c").stdout.strip()
    eventually(
        lambda: world.run(site, "login", ["test", "-s", "starts"], user="d7c", check=False).returncode == 0,
        10,
        "the job runs",
    )
    world.stop_node(site, "n2")
    try:
        service = {each["name"]: each["state"] for each in world.status()["services"]}
        assert service[f"{site}/n2"] == "stopped"
        assert service[f"{site}/n1"] == "running"
        done = world.run(
            site, "login", ["sbatch", "--wait", "--nodelist=n1", "--wrap", "hostname > $HOME/where"], user="d7c"
        )
        assert done.returncode == 0
        assert world.run(site, "login", ["cat", "where"], user="d7c").stdout.startswith("n1.")
        eventually(lambda: job_field(world, site, job, "JobState") == "NODE_FAIL", 40, "Slurm notices")
    finally:
        world.start_node(site, "n2")
    eventually(
        lambda: world.run(site, "login", ["sinfo", "-h", "-n", "n2", "-o", "%t"]).stdout.split()[0] == "idle",
        20,
        "n2 is idle",
    )
    assert job_field(world, site, job, "JobState") == "NODE_FAIL"
    assert world.run(site, "login", ["cat", "starts"], user="d7c").stdout == "started\n"


def test_a_login_host_comes_back_with_its_queue(world: World, certificate, login) -> None:
    site = "bnl-sdcc"
    job = world.run(site, "login", ["sbatch", "--parsable", "--wrap", "sleep 8"], user="u12345").stdout.strip()
    eventually(lambda: job_field(world, site, job, "JobState") == "RUNNING", 10, "the job runs")
    key = certificate(f"dcde1000001@{site}", site)
    world.stop_node(site, "login")
    assert login(site, "u12345", key, "true").returncode == 255
    world.start_node(site, "login")
    eventually(lambda: login(site, "u12345", key, "squeue").returncode == 0, 20, "the login host is back")
    eventually(lambda: job_field(world, site, job, "JobState") == "COMPLETED", 25, "the job ends well")


def test_services_that_crash_are_started_again_and_the_door_keeps_its_socket(world: World) -> None:
    def starts(name: str) -> int:
        return next(each["starts"] for each in world.status()["services"] if each["name"] == name)

    for name, url in (("echo", "http://127.0.0.1:8000/"), ("door", f"https://hub.localhost:{world.port}/")):
        before = starts(name)
        world.service(name, "crash")
        argv = ["curl", "-sS", "--cacert", "/run/door/ca.crt", "--max-time", "5", url]
        eventually(lambda b=before, n=name: starts(n) == b + 1, 10, "it is started again")
        eventually(
            lambda a=argv: world.run("hub", None, a, check=False).stdout.startswith("echo"), 10, "it answers again"
        )


def test_the_state_folder_is_private_and_processes_have_their_own_accounts(world: World) -> None:
    assert world.state.stat().st_mode & 0o777 == 0o700
    listed = world.run("hub", None, ["ps", "-e", "-o", "user:20=,args="]).stdout.splitlines()
    owner = {line.split(None, 1)[1].split()[-1]: line.split()[0] for line in listed}
    assert owner["/run/door/configuration.json"] == "dcde-door"
    assert owner["echo"] == "guest-echo"
    assert world.run("hub", None, ["cat", "/proc/1/environ"]).stdout.count("=") <= 6
