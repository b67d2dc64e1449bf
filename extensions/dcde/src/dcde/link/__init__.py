"""The link: the one outbound connection from a runner to a site, over which everything goes."""

from dcde.link.link import Link
from dcde.link.state import LinkState, LinkTimes

__all__ = ["Link", "LinkState", "LinkTimes"]
