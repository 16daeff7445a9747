"""What the black-box tests, the crash and hostile runs and the benches share.

Nothing here knows the inside of a server: a server is a process, a port, a data directory and a log.
"""
