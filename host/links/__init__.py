"""What carries packets to a device."""
