"""Everything of a data folder, for people and programs that look into it."""
