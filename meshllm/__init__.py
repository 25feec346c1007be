"""Meshtastic-LLM: an offline librarian for LoRa meshes."""

__version__ = "0.1.0"
