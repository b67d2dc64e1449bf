"""slurm.conf and cgroup.conf of a site, as text (Slurm 22.05; `man slurm.conf`)."""

from __future__ import annotations

from dcde_testbed.layout import Site

PARTITIONS = (
    {"name": "batch", "max_walltime_minutes": 120, "default": True},
    {"name": "debug", "max_walltime_minutes": 10, "default": False},
)

# slurmd 22.05 loads a cgroup plugin whatever the process tracking is; this one needs nothing mounted.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"

_CONF = """ClusterName={name}
SlurmctldHost=login({login})
SlurmUser=slurm
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# People wait for the answer: schedule at once, notice dead nodes soon, remember ended jobs for an hour.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=5
SlurmdTimeout=8
MessageTimeout=5
KillWait=3
MinJobAge=3600
# A node that comes back works again; a job that died with it does not start again by itself.
ReturnToService=2
JobRequeue=0
PrivateData=jobs,usage
PropagateResourceLimits=NONE
MailProg=/bin/true
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdParameters=config_overrides
"""


def slurm_conf(site: Site) -> str:
    """The configuration that the controller, the nodes and the commands of a site share."""
    lines = [_CONF.format(name=site.name, login=site.lan_address("login"))]
    for node in site.compute_nodes:
        lines.append(
            f"NodeName={node} NodeAddr={site.lan_address(node)} CPUs={site.cores_per_node} "
            f"RealMemory={site.memory_mb_per_node} State=UNKNOWN\n"
        )
    for partition in PARTITIONS:
        default, minutes = "YES" if partition["default"] else "NO", partition["max_walltime_minutes"]
        lines.append(f"PartitionName={partition['name']} Nodes=ALL Default={default} MaxTime={minutes} State=UP\n")
    return "".join(lines)
