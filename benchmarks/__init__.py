"""Benchmarks: programs with prose; see README.md."""
