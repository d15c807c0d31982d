"""What watching costs, against its peers."""

import os

# Before NumPy is imported: for a long dot product, such as add_histogram takes, its BLAS wakes threads, which then spin
# for a while. That would be CPU time of whatever is measured next.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
