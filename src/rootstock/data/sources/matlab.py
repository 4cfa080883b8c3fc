"""MATLAB files of labels and splits: small, untrusted, read whole."""

import io
import struct
import zlib

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from rootstock.data.archives import ArchiveError

MAX_MAT_BYTES = 64 << 20
# what scipy raises for damaged bytes, found by cutting and flipping real files
DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MatReadError,
    MemoryError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def read_variable(data: bytes, *, variable: str, where: str) -> np.ndarray:
    """Return one variable of a .mat file, its dimensions of length one removed.

    Args:
        data: the file's bytes, of format 4 to 7.2.
        variable: its name.
        where: what to call the file in errors.

    Raises:
        ArchiveError: the bytes are damaged, or the variable is absent.
    """
    if len(data) > MAX_MAT_BYTES:
        raise ArchiveError(f"{where}: found {len(data)} bytes, wanted at most {MAX_MAT_BYTES}")
    try:
        found = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)
    except DAMAGED as error:
        raise ArchiveError(f"{where} is not a whole MATLAB file: {error}") from None
    if variable not in found:
        names = sorted(name for name in found if not name.startswith("__"))
        raise ArchiveError(f"{where}: found the variables {names}, wanted {variable!r}")
    return np.atleast_1d(found[variable])


def read_numbers(data: bytes, *, variable: str, where: str) -> np.ndarray:
    """Return a variable that is a list of whole numbers >= 1.

    Returns:
        int64, (N,).

    Raises:
        ArchiveError: as `read_variable`, or the variable is something else; the message names the first wrong value.
    """
    values = read_variable(data, variable=variable, where=where)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ArchiveError(
            f"{where}: {variable}: found {values.dtype} of shape {values.shape}, wanted a list of numbers"
        )
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((values >= 1) & (values < 2**31) & (np.floor(values) == values)))
    if len(wrong):
        raise ArchiveError(f"{where}: {variable}[{wrong[0]}]: found {values[wrong[0]]}, wanted a whole number >= 1")
    return values.astype(np.int64)
