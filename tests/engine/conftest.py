"""The package, imported where transformers may be missing."""

import warnings

with warnings.catch_warnings():
    # Without transformers the package says so when it is imported; its engine works all the same.
    warnings.simplefilter("ignore", UserWarning)
    import mishformer_lens  # noqa: F401
