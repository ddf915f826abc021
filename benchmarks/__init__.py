"""Timings of `ct.ensemble` beside other ways to do the same: `python -m benchmarks NAME`."""
