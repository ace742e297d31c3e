"""What every test module shares. Nothing of torch: tests of the engine and the tools run where it is not installed."""

import os

# No test needs a model hub, and none may wait for one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Expected failures with their causes, and the record that `--outcomes FOLDER` writes.
pytest_plugins = ("tests.outcome_plugin",)
