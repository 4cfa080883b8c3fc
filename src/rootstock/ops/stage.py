"""What every stage script does around its work: end with its parent, say a person's mistakes without a traceback."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rootstock.ops import mend
from rootstock.ops.locks import die_with_parent


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the process with a message for what a person can mend.

    `ValueError` (a mistake: configuration, data, contract) and `OSError` (a missing file, a full disk) end it with
    their message and status 1; anything else is our own mistake and keeps its traceback. `$ROOTSTOCK_DEBUG` keeps
    every traceback.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get("ROOTSTOCK_DEBUG"):
            raise
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def stage(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a stage's `main`: it dies with its parent, and its errors are plain."""

    @functools.wraps(main)
    def wrapped() -> None:
        die_with_parent()
        if "DVC_STAGE" in os.environ:
            mend.keep()
        with plain_errors():
            main()

    return wrapped
