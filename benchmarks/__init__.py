"""Measurements that anyone can run again: `./run.sh bench`. Ships with the repository only."""
