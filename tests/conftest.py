"""What every test module shares. Nothing of torch: tests of the engine and the tools run where it is not installed."""

import os
import warnings

# No test needs a model hub, and none may wait for one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

with warnings.catch_warnings():
    # Where transformers is not installed, the package says so at its first import; the session `unit` knows.
    warnings.simplefilter("ignore", UserWarning)
    import mishformer_lens  # noqa: F401

# Expected failures with their causes, and the record that `--outcomes FOLDER` writes.
pytest_plugins = ("tests.outcome_plugin",)
