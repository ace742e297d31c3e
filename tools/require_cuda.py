"""Stops a session that needs CUDA where there is none."""

import sys

import torch

if not torch.cuda.is_available():
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU only"
    sys.exit(
        f"This session needs a CUDA device, and torch {torch.__version__} ({built}) sees none. "
        "Run it on a machine with an NVIDIA GPU and driver, or run the same cell on the CPU: nox -s test"
    )
print(f"torch {torch.__version__} on {torch.cuda.get_device_name()}")
