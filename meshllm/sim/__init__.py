"""A simulated mesh behind the real wire protocol. Shares no code with the radio adapter."""
