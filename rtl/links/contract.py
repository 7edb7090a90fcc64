# amaranth: UnusedElaboratable=no
"""The contract of every link: what carries packets between a host and the accelerator.

A link frames packets and nothing more. It gives the accelerator each packet that a host sent, byte
by byte, and takes each response.

* `o_packet` brings the bytes of a packet, `Link.beat_bytes` in each beat; `last` ends it. The bytes
  after the packet's length are ignored. A link that knows that the packet is wrong sets `o_abort`
  with the last beat, and the packet is dropped.
* One cycle or more after the last byte the accelerator says what became of the packet: `i_good`
  (taken), `i_bad` (wrong checksum or length, or aborted) or `i_dropped` (the receive buffer was
  full). The next packet's last byte does not pass before that.
* A link with more than one peer (`Link.peer_bits` > 0) gives the sender's address as `o_peer`,
  valid from the last byte until the strobe. The response comes with that address as `i_peer`,
  valid while the response's bytes are. So no later packet can divert it.
* On a link with hosts (`Link.host_bits`) the device belongs to one peer at a time, see
  `tritloom.rtl.control.owner`.
* A link may have pads of its own and clock domains of its own, made from them: it crosses into the
  domain `sync`, in which all of the contract's members are.
* A link whose packets are shorter than the buffer's pitch says so by `Link.most_packet_bytes`.
"""

from amaranth.hdl import Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out

from tritloom.rtl.lib.streams import packet_layout
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError
from tritloom.rtl.spec.registry import load_component

__all__ = ["PacketLink", "create_link", "link_members"]


def link_members(config: AcceleratorConfig) -> dict[str, Member]:
    """The ports of a `PacketLink` but for its pads."""
    peer = config.link.peer_bits(config)
    packets = stream.Signature(packet_layout(config.link.beat_bytes))
    return {
        "o_packet": Out(packets),
        "o_abort": Out(1),
        "i_packet": In(packets),
        "i_good": In(1),
        "i_bad": In(1),
        "i_dropped": In(1),
        **({"o_peer": Out(peer), "i_peer": In(peer)} if peer else {}),
    }


class PacketLink(wiring.Component):
    """Base of every link; a subclass adds `elaborate` and its pads.

    Parameters
    ----------
    config : the accelerator's configuration
    pads : members beyond the contract; the accelerator forwards them under their own names, and
        `Link.pins` says what each means

    Members
    -------
    o_packet : stream out of `packet_layout`; packets from the host
    o_abort : 1 bit out, with the last beat of `o_packet`; drop this packet
    i_packet : stream in of `packet_layout`; responses to the host
    i_good, i_bad, i_dropped : 1 bit in each; strobes, one for each packet
    o_peer, i_peer : only with `Link.peer_bits`; where the packet is from, where the response goes
    """

    o_packet: stream.Interface
    o_abort: Signal
    i_packet: stream.Interface
    i_good: Signal
    i_bad: Signal
    i_dropped: Signal
    o_peer: Signal
    i_peer: Signal

    def __init__(self, config: AcceleratorConfig, pads: dict[str, Member]) -> None:
        self.config = config
        super().__init__(link_members(config) | pads)


def create_link(config: AcceleratorConfig) -> PacketLink:
    """The link of a configuration.

    Raises
    ------
    ConfigError : the component does not import or is no `PacketLink`
    """
    path = config.link.component
    component = load_component(path)
    if not (isinstance(component, type) and issubclass(component, PacketLink)):
        raise ConfigError(f"link {config.link.name!r}: {path} is not a PacketLink")
    link: PacketLink = component(config)  # type: ignore[call-arg] # a subclass brings its pads
    return link
