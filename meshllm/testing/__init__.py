"""Fakes that ship with the program, complete enough to refuse what the real thing refuses."""
