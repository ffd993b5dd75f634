"""Training: a loop over updates, and what goes into each of them."""

import os

# Read when torch is loaded. Threads that wait for each other must not spin: beside other work on the machine an update
# would take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
