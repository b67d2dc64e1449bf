"""What every part of DCDE Hub shares: the site descriptor, the capability document and the decision."""

from dcde_models.capabilities import CapabilityDocument, GroupCapability, Person
from dcde_models.decision import Decision, Missing, Need, decide
from dcde_models.errors import InvalidDocument, ModelsError
from dcde_models.sites import SiteDescriptor

__all__ = [
    "CapabilityDocument",
    "Decision",
    "GroupCapability",
    "InvalidDocument",
    "Missing",
    "ModelsError",
    "Need",
    "Person",
    "SiteDescriptor",
    "decide",
]
