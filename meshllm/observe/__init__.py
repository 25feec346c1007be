"""Logs and status files. Decides nothing."""
