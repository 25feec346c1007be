"""Radio to files and back."""
