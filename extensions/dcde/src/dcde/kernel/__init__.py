"""The DCDE kernel: an ordinary Python kernel in which `dcde` is there from the first cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Put the library into the notebook's namespace; IPython calls this when the kernel starts."""
    import dcde
    import dcde.api  # loaded now, so that the first call does not wait for it

    shell.push({"dcde": dcde}, interactive=False)  # type: ignore[no-untyped-call]
