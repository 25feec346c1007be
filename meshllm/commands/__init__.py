"""Answers that need no language model: out of the files, at once. Writes nothing."""
