"""Unix accounts of people, made on this machine from checked registry data and from nothing else.

The uid is the registry's, never the next free one: homes outlive accounts, and a reused uid would own another
person's files.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import stat
import subprocess
from pathlib import Path

from dcde_hub.errors import AccountRefused
from dcde_hub.registry import Member, UidRange

log = logging.getLogger("dcde.accounts")

_MEND = "An operator must compare the registry with /etc/passwd of this machine."


class Accounts:
    """Makes the accounts of people and checks those that exist.

    Args:
        home_root: The folder that holds the homes.
        uids: The uids that people may have; checked here again, whoever calls.
        shell: The login shell.
    """

    def __init__(self, home_root: Path = Path("/home"), uids: UidRange | None = None, shell: str = "/bin/bash") -> None:
        self._home_root = home_root
        self._uids = uids or UidRange()
        self._shell = shell
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self, member: Member) -> pwd.struct_passwd:
        """Return the member's account with a 0700 home; make it when there is none.

        Raises:
            AccountRefused: The uid is out of range, or the name, uid or home belongs to something else.
        """
        if member.uid_number not in self._uids:
            raise AccountRefused(
                f"No account is made with uid {member.uid_number}.", where=member.dcde_id, remedy=_MEND
            )
        async with self._one_at_a_time:
            entry = self._existing(member)
            if entry is None:
                await self._make(member)
                entry = self._existing(member)
        if entry is None:
            raise AccountRefused("useradd made no account.", where=member.dcde_id, remedy=_MEND)
        _ensure_home(Path(entry.pw_dir), entry)
        return entry

    def _existing(self, member: Member) -> pwd.struct_passwd | None:
        """Return the account when it is there and right, None when name and uid are free."""
        name, uid = member.dcde_id, member.uid_number
        _check_free_or_same(name, uid, _by_uid(uid), "uid")
        _check_free_or_same(name, uid, _group_by_gid(uid), "gid")
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        expected = (uid, uid, str(self._home_root / name))
        if (entry.pw_uid, entry.pw_gid, entry.pw_dir) != expected:
            raise AccountRefused(
                f"There is another account of this name (uid {entry.pw_uid}, home {entry.pw_dir}).",
                where=name,
                remedy=_MEND,
            )
        return entry

    async def _make(self, member: Member) -> None:
        name, uid = member.dcde_id, str(member.uid_number)
        if _group_by_gid(member.uid_number) is None:
            await _run("groupadd", "--gid", uid, "--", name)
        home = str(self._home_root / name)
        settings = ("HOME_MODE=0700", "SUB_UID_COUNT=0", "SUB_GID_COUNT=0")
        await _run(
            "useradd", "--uid", uid, "--gid", uid, "--home-dir", home, "--create-home", "--shell", self._shell,
            "--no-log-init", *(word for setting in settings for word in ("--key", setting)), "--", name,
        )  # fmt: skip
        log.info("made the account %s with uid %s", name, uid, extra={"person": name})


def _ensure_home(home: Path, entry: pwd.struct_passwd) -> None:
    """Make the home if it is missing, and see that it is the person's own and closed to others."""
    try:
        home.mkdir(mode=0o700)
        os.chown(home, entry.pw_uid, entry.pw_gid)
    except FileExistsError:
        pass
    descriptor = -1
    try:
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(descriptor)
        if status.st_uid != entry.pw_uid:
            raise AccountRefused(f"The home belongs to uid {status.st_uid}.", where=str(home), remedy=_MEND)
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
    except OSError as error:
        raise AccountRefused(f"The home cannot be used: {error.strerror}.", where=str(home), remedy=_MEND) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _check_free_or_same(name: str, number: int, owner: str | None, kind: str) -> None:
    if owner not in (None, name):
        raise AccountRefused(f"The {kind} {number} belongs to {owner} on this machine.", where=name, remedy=_MEND)


def _by_uid(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group_by_gid(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


async def _run(*argv: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30
    )
    if done.returncode:
        text = done.stdout.decode(errors="replace").strip()
        raise AccountRefused(f"{argv[0]} failed: {text}", where=argv[-1], remedy=_MEND)
