"""Language models. Knows no files and no radio."""
