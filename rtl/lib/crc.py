"""The checksum of packets and frames in hardware: CRC-32 of IEEE 802.3, one byte a cycle."""

from amaranth.lib.crc.catalog import CRC32_ISO_HDLC

__all__ = ["CRC32"]

CRC32 = CRC32_ISO_HDLC(data_width=8)
