"""The pages of the prompt log, and what of them may be published."""
