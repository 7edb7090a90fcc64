"""What every folder may read: configuration, packing, commands, arithmetic. No Amaranth."""
