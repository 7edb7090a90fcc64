"""Plug-ins for Tritloom: one file each."""
