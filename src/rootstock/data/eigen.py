"""Eigenvectors of a small symmetric matrix, the same to the bit on every processor.

LAPACK's differ in the last bits between processors and versions, and files that others depend on must not. Jacobi
rotations use +, −, ×, ÷ and √ only, which IEEE 754 rounds in one way.
"""

import math

MAX_SWEEPS = 30  # a 3 × 3 matrix needs about 5


def symmetric_eigen(matrix: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Return eigenvalues, falling, and unit eigenvectors as rows.

    The sign of a vector is fixed: its component of largest magnitude (the first of equals) is positive.

    Args:
        matrix: symmetric, n × n.

    Source: cyclic Jacobi; Golub & Van Loan, Matrix Computations, 4th ed., 8.5.
    """
    size = len(matrix)
    values = [[float(number) for number in row] for row in matrix]
    vectors = [[float(row == column) for column in range(size)] for row in range(size)]
    for _ in range(MAX_SWEEPS):
        if all(values[row][column] == 0.0 for row in range(size) for column in range(row)):
            break
        for row in range(size - 1):
            for column in range(row + 1, size):
                _rotate(values, vectors, row, column)
    order = sorted(range(size), key=lambda place: -values[place][place])
    return [values[place][place] for place in order], [_sign_fixed([row[place] for row in vectors]) for place in order]


def _rotate(values: list[list[float]], vectors: list[list[float]], p: int, q: int) -> None:
    """Make the entries (p, q) and (q, p) zero."""
    entry = values[p][q]
    if abs(values[p][p]) + abs(entry) == abs(values[p][p]) and abs(values[q][q]) + abs(entry) == abs(values[q][q]):
        values[p][q] = values[q][p] = 0.0  # too small to change either eigenvalue
        return
    ratio = (values[q][q] - values[p][p]) / (2 * entry)
    tangent = math.copysign(1.0, ratio) / (abs(ratio) + math.sqrt(ratio * ratio + 1))
    cosine = 1 / math.sqrt(tangent * tangent + 1)
    sine = tangent * cosine
    for row in values:
        row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]
    values[p], values[q] = (
        [cosine * a - sine * b for a, b in zip(values[p], values[q], strict=True)],
        [sine * a + cosine * b for a, b in zip(values[p], values[q], strict=True)],
    )
    values[p][q] = values[q][p] = 0.0
    for row in vectors:
        row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]


def _sign_fixed(vector: list[float]) -> list[float]:
    largest = max(vector, key=abs)
    return [-number + 0.0 for number in vector] if largest < 0 else [number + 0.0 for number in vector]  # no −0.0
