"""Tells the whole story of one message out of the files. Changes none."""
