"""One thin script a stage, in the order of the flow."""

import os

# Before the first import of torch: threads that wait must sleep, not spin. On shared cores spinning costs up to ten
# times the work's own time; on idle ones the difference was not measurable.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
