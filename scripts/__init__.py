"""Programs for those who work on the package. Run one as ``python -m scripts.<name>``."""
