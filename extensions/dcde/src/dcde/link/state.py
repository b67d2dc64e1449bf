"""How a link stands, and the times it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LinkState:
    """How a link stands.

    Attributes:
        name: `connecting` until the first attempt has ended, `up`, `lost` while the network or site is away and the
            link keeps trying, `refused` when the broker or the site says no (tried again slowly).
        since: Since when, in seconds of the epoch.
        reason: Why it is not up, as a sentence.
        remedy: What the person can do, as a sentence.
        login_host: The login host it is or was on.
    """

    name: Literal["connecting", "up", "lost", "refused"]
    since: float
    reason: str = ""
    remedy: str = ""
    login_host: str = ""


@dataclass(frozen=True)
class LinkTimes:
    """The times of a link, in seconds; tests make them short.

    Attributes:
        keepalive: How often ssh asks whether the other end is there; after three unanswered it is given up.
        beat: How often each end of a session says that it is there.
        silent: After so long without a byte a carrier is given up. Must be a few beats.
        connect: How long one attempt may take until ssh is up.
        agent: How long the agent may take to be there after that.
        backoff_first: The longest wait after the first failure; it doubles with each further one.
        backoff_most: The longest wait of all.
        refused: The longest wait after a refusal.
        lease: How long the agent stays when nobody is attached.
    """

    keepalive: float = 5.0
    beat: float = 4.0
    silent: float = 12.0
    connect: float = 20.0
    agent: float = 30.0
    backoff_first: float = 1.0
    backoff_most: float = 30.0
    refused: float = 120.0
    lease: float = 3600.0


@dataclass(frozen=True)
class LinkPlaces:
    """Where the agent works at a site.

    Attributes:
        storage: The person's folder; `{account}` stands for the account.
        records: The folder for records, `~` being the account's home.
        program_path: The folders in which the scheduler's programs are looked for.
    """

    storage: str
    records: str
    program_path: str
