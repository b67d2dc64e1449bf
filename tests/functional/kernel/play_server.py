"""Plays a server: starts a warm process and one kernel from it, prints their process ids, and waits to be killed."""

import os
import signal
import sys
import time
from pathlib import Path

import conftest as parts
from dcde.kernel.asking import KernelRequest, ask
from jupyter_client.connect import write_connection_file


def main(folder: str) -> None:
    warm = parts.WarmInTest()
    file, _ = write_connection_file(f"{folder}/k.json", transport="ipc", ip=f"{folder}/k-ipc")
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", file]
    pid, _, _ = connection = ask(KernelRequest.like_this_process(argv, dict(os.environ), folder), os.getpid())
    while not Path(f"{folder}/k-ipc-1").exists():
        time.sleep(0.02)
    print(warm.pid, pid, flush=True)
    signal.pause()
    del connection


if __name__ == "__main__":
    main(sys.argv[1])
