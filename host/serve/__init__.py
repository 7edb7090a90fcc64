"""A device for several programs: one process holds it, others reach it through a local socket."""
