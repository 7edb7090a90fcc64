"""Links and their contract: what carries packets to and from the accelerator."""
