"""A benchmark of training faults: programs with known outcomes, and detectors that judge recordings of them."""
