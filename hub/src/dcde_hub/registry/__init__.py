"""The registry: who is a member, in which groups, and which policies and trainings each has."""

from dcde_hub.registry.backend import Registry
from dcde_hub.registry.file import FileRegistry
from dcde_hub.registry.model import Member, Policy, UidRange

__all__ = ["FileRegistry", "Member", "Policy", "Registry", "UidRange"]
