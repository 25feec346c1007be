"""The file bus: whole-file replacement, sidecar locks, tables, quarantine, watching."""
