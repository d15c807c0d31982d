"""Hypothesis tries the same examples everywhere; no machine is too slow, and none too busy, for what is measured."""

import signal

import torch
from hypothesis import settings

settings.register_profile("gradwatch", deadline=None, derandomize=True)
settings.load_profile("gradwatch")

torch.set_num_threads(1)  # the models are tiny, and threads that wait for a busy core wait long

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of what a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
