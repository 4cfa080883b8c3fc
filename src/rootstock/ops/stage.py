"""What every stage script does around its work: end with its parent, and say a person's mistakes without a traceback."""

import functools
import sys
from collections.abc import Callable

from rootstock.ops.locks import die_with_parent


def stage(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a stage's `main`.

    `ValueError` (a person's mistake: configuration, data, contract) and `OSError` (a missing file, a full disk) end
    the stage with their message and status 1; anything else is our own mistake and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        die_with_parent()
        try:
            main()
        except (ValueError, OSError) as error:
            notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
            print(f"error: {error}{notes}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
