"""How much of an image's time holds Python's global lock, and so with how many threads a loader stops to scale.

A loader of one thread on one core is measured with the calls that let go of the lock timed on their thread's CPU clock
(decoding, resizing, hashing, reading): what is left of the process's CPU time is an upper bound of the time under the
lock, s of the whole. (py-spy's looks were tried: on a busy machine they mostly see a thread that was descheduled while
it held the lock.) Threads then queue for one server, the lock, and work beside it: the machine-repair model with
exponential times, whose throughput for n threads, one thread's being 1, mean value analysis gives; its limit is 1/s.
"""

import statistics

import rounds  # beside this script

THREADS = (1, 2, 4, 8, 16, 32)


def measure(contender: rounds.Contender, order: dict, *, num_rounds: int) -> dict:
    """Measure a contender of one thread that counts the time without the lock.

    Returns:
        The share (median, interval), and the model's throughput by number of threads.
    """
    resident = rounds.Resident(contender)
    try:
        turns = [resident.measure(order) for _ in range(num_rounds)]
    finally:
        resident.close()
    shares = [1 - turn["free_seconds"] / turn["cpu_seconds"] for turn in turns]
    share = statistics.median(shares)
    model = {str(n): scaled(share, n) for n in THREADS}
    print(f"\nunder the lock: at most {share:.3f} of one thread's time; modelled throughput by threads: ")
    print(", ".join(f"{n}: {value:.1f}" for n, value in model.items()))
    return {"share": rounds.figure(shares), "modelled_throughput_by_threads": model}


def scaled(share: float, num_threads: int) -> float:
    """Return the throughput of `num_threads` threads on as many cores, one thread's being 1."""
    queue, throughput = 0.0, 0.0
    for n in range(1, num_threads + 1):
        waiting = share * (1 + queue)
        throughput = n / (waiting + 1 - share)
        queue = throughput * waiting
    return throughput
