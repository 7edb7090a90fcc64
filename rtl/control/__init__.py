"""Packets and commands: what a host asks for, and the responses."""
