"""Bitstreams: synthesis, place and route, reports, flashing."""
