"""What every kind of registry offers to the hub and its services."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dcde_hub.registry.model import Member, Policy


class Registry(ABC):
    """Answers who somebody is. Asked anew each time, so that a change there acts at once."""

    @abstractmethod
    async def by_id(self, dcde_id: str) -> Member | None:
        """Return the member with this DCDE id, None when there is none.

        Raises:
            EntryRefused: There is an entry, and it cannot be used.
            RegistryUnavailable: The registry gives no answer now.
        """

    @abstractmethod
    async def by_identity(self, identity: str) -> Member | None:
        """Return the member who owns this institution identity, None when nobody does; raises as `by_id`."""

    @abstractmethod
    async def policies(self) -> dict[str, Policy]:
        """Return the policies there are, by their identifiers; raises RegistryUnavailable."""
