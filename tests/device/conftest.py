"""The pretend device is made known before anything else."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import pretend_device

pretend_device.register()
