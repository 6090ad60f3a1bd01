"""CREC v1 as bytes: no files, no clock, no randomness. The rules are in docs/recording-format.md."""
