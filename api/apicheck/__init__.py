"""Compares our public API with listings of crates.io's: the parts of `api/compare`."""
