"""A cluster of processes, each with a network of its own where that can be had, and what is done to it."""
