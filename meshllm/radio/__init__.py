"""Radios: what they say and how to speak to them. Knows no files."""
