"""Helpers of the noxfile: what reads and refreshes `compat/`. Not part of the installed package."""
