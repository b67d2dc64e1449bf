"""Fixtures for tests of the link.

- `site`: a site of one login host with a real sshd behind a wire that can be cut (see `link_site.SiteInTest`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from link_site import SiteInTest, has_sshd, site_in_test


@pytest.fixture
async def site() -> AsyncIterator[SiteInTest]:
    if not has_sshd():
        pytest.skip("Debian's openssh-server is not installed, or no mount namespace can be made for it")
    async with site_in_test() as running:
        yield running
