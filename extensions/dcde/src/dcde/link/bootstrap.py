"""Bring the agent to a login host and attach to it, over one ssh session and without any shell text of our own.

The command of the ssh session is constant: an interpreter that runs the one line it reads first. That line is the text
of `dcde.agent.home` with a few lines after it, which make the agent's private folder, ask for the agent's file when it
is not there, and then become the agent's `attach`.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from dcde.agent.protocol import Reader, Writer
from dcde.errors import AgentError, LinkLost, LinkRefused
from dcde.link.bundle import Bundle

# Unbuffered, so that nothing after the first line is taken away from whoever reads next.
FIRST = 'exec(open(0,"rb",0,closefd=False).readline())'
MARK = b"\0dcde "
MAX_NOISE = 256 * 1024
"""So much may a login shell print before the interpreter is reached."""

STAGE = """
import json, sys

def say(word, value=None):
    os.write(1, ("\\0dcde %s %s\\n" % (word, json.dumps(value))).encode())

def stage(parent, records, digest, size):
    os.umask(0o077)
    try:
        if sys.version_info < (3, 9):
            raise HomeRefused("Python %d.%d is too old for the agent, which needs 3.9" % sys.version_info[:2])
        folder = agent_folder(parent, records_folder(records))
        path = os.path.join(folder, "agent-%s.pyz" % digest[:16])
        if has_file(path, digest):
            say("have")
        else:
            say("want")
            content = b""
            while len(content) < size:
                data = os.read(0, min(65536, size - len(content)))
                if not data:
                    return
                content += data
            if hashlib.sha256(content).hexdigest() != digest:
                raise HomeRefused("the agent's file arrived damaged")
            put_file(path, content)
    except (OSError, HomeRefused) as error:
        say("fail", {"message": str(error)})
        return
    os.execv(sys.executable, [sys.executable, "-I", "-X", "utf8", path, "attach", folder, digest])
"""


def command(interpreter: str) -> str:
    """Return the command of the ssh session; its only variable part is the path in the site's descriptor, quoted."""
    return shlex.join([interpreter, "-I", "-X", "utf8", "-c", FIRST])


def first_line(bundle: Bundle, parent: str, records: str) -> bytes:
    """Return the line that prepares a login host: Python text in one literal, so that it has no line break."""
    arguments = (parent, records, bundle.digest, len(bundle.content))
    text = f"{bundle.home}\n{STAGE}\nstage(*{arguments!r})\n"
    return b"exec(" + ascii(text).encode("ascii") + b")\n"


async def _line(reader: Reader, noise: bytearray) -> tuple[str, Any]:
    """Return the next line that is meant for us; what login shells print before it is kept in `noise`."""
    line = bytearray()
    while True:
        byte = await reader.read(1)
        if not byte:
            raise EOFError
        line += byte
        if len(noise) + len(line) > MAX_NOISE:
            raise AgentError("The login shell prints without end.", remedy="Look at your shell's start files there.")
        if byte == b"\n":
            _, mark, rest = bytes(line).partition(MARK)
            if mark:
                word, _, value = rest.decode("utf-8", "replace").strip().partition(" ")
                try:
                    return word, json.loads(value) if value else None
                except ValueError as error:
                    raise AgentError("The start of the agent gave an answer that makes no sense.") from error
            noise += line
            line.clear()


async def start_agent(
    reader: Reader, writer: Writer, said: bytearray, bundle: Bundle, *, parent: str, records: str, where: str
) -> None:
    """Make the ssh session, which runs `command`, a carrier to the agent.

    Args:
        reader: The session's output.
        writer: The session's input.
        said: What the session printed on its error output so far, for messages.
        bundle: The agent's file.
        parent: A node-local folder on the login host, such as /tmp.
        records: The account's folder for records, such as ~/.dcde.
        where: The site's name, for messages.

    Raises:
        LinkRefused: The site has no usable Python or no place for the agent.
        LinkLost: The session ended meanwhile.
    """
    noise = bytearray()
    try:
        writer.write(first_line(bundle, parent, records))
        await writer.drain()
        word, value = await _line(reader, noise)
        if word == "want":
            writer.write(bundle.content)
            await writer.drain()
        if word in ("have", "want"):
            word, value = await _line(reader, noise)
    except EOFError:
        text = " ".join((bytes(said) or bytes(noise)).decode("utf-8", "replace").split())[-600:]
        if "not found" in text or "No such file" in text or "Permission denied" in text:
            raise LinkRefused(
                f"The login host cannot start the agent: {text}",
                where=where,
                remedy="The site's descriptor must name a Python of version 3.9 or later; tell the site's support.",
            ) from None
        raise LinkLost(f"The session with the login host ended at its start. {text}".rstrip(), where=where) from None
    if word != "ready":
        message = str(value.get("message", "")) if isinstance(value, dict) else ""
        raise LinkRefused(
            f"The login host has no place for the agent: {message[:600] or word}.",
            where=where,
            remedy="Check that your home folder and the node's local disk there are not full.",
        )
