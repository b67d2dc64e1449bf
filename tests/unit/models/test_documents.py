import pytest
from dcde_models import CapabilityDocument, InvalidDocument, SiteDescriptor

SITE = """
name: bnl-sdcc
aliases: [bnl]
title: BNL SDCC
ssh: {hosts: [login.sdcc.bnl.example], host_keys: ["ssh-ed25519 AAAA"]}
scheduler:
  nodes: 2
  partitions:
    - {name: debug, max_walltime_minutes: 10, cores_per_node: 2, memory_mb_per_node: 1000}
    - {name: batch, default: true, max_walltime_minutes: 120, cores_per_node: 2, memory_mb_per_node: 1000}
storage: {root: /work/dcde}
"""


def test_a_site_descriptor_is_read():
    site = SiteDescriptor.from_yaml(SITE)
    assert site.scheduler.default_partition.name == "batch"
    assert site.ssh.port == 22
    assert site.answers_to("bnl") and site.answers_to("bnl-sdcc") and not site.answers_to("anl")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("name: bnl-sdcc", "name: BNL SDCC", "name"),
        ("hosts: [login.sdcc.bnl.example]", "hosts: ['-oProxyCommand=x']", "ssh.hosts"),
        ("hosts: [login.sdcc.bnl.example]", "hosts: []", "ssh.hosts"),
        ("name: debug,", "name: 'x --wrap=evil',", "scheduler.partitions"),
        ("name: debug,", "name: debug, default: true,", "only one partition"),
        ("root: /work/dcde", "root: work", "storage.root"),
        ("title: BNL SDCC", "titel: BNL SDCC", "titel"),
    ],
)
def test_a_wrong_value_is_named_with_the_file(old, new, field):
    with pytest.raises(InvalidDocument, match=r"site\.yaml is not valid") as caught:
        SiteDescriptor.from_yaml(SITE.replace(old, new), origin="site.yaml")
    assert field in str(caught.value)


def test_broken_yaml_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(InvalidDocument, match="not valid YAML"):
        CapabilityDocument.from_yaml("a: [")
    with pytest.raises(InvalidDocument, match="cannot be read"):
        CapabilityDocument.from_file(tmp_path / "none.yaml")
