"""Language models whose ternary layers run on a device."""
