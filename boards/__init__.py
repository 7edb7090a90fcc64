"""Boards: pins, clocks, memory and link, one file each."""
