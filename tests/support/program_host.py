"""A host of the reference device with a vector unit: it sends requests and keeps the packets."""

from dataclasses import replace

import numpy as np

from tests.support.world import set_void
from tritloom.rtl.spec import requests
from tritloom.rtl.spec.commands import Opcode, Request, Response, Status
from tritloom.rtl.spec.config import TINY
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_weights
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_operations import ProgramBuilder
from tritloom.rtl.spec.vector_program import Operation, Step, encode_program
from tritloom.sim.device.reference import ReferenceDevice

CONFIG = replace(TINY, vector=VectorConfig(words=192))
ODD = replace(CONFIG, fill=5, vector=VectorConfig(words=160))
"""Its number of words is no power of two."""
END = Step(operation=Operation.END)


class Host:
    """Sends requests in their order; `done` demands OK.

    Members
    -------
    packets : each packet that was sent, and the response
    """

    def __init__(self, config=CONFIG):
        self.config, self.device = config, ReferenceDevice(config)
        self.packets = []
        self.session = 0
        self.reset()

    def reset(self):
        self.session += 1
        self.seq = 0
        response = self._send(Request(Opcode.RESET, session=self.session))
        assert response.status == Status.OK

    def send(self, request):
        self.seq += 1
        return self._send(replace(request, seq=self.seq, session=self.session))

    def _send(self, request):
        packet = request.pack()
        set_void(self.device)
        response = self.device.process(packet)
        self.packets.append((packet, response))
        return Response.parse(response)

    def done(self, *several):
        responses = [self.send(request) for request in several]
        assert {response.status for response in responses} <= {Status.OK}
        return responses

    def load(self, index, trits, base=0):
        image = pack_weights(self.config, trits)
        shape = LayerShape.of(self.config, *trits.shape)
        size = self.config.max_payload
        self.done(requests.define_layer(index, base, shape))
        self.done(*requests.write_words(self.config, index, image, size))
        self.done(requests.commit_layer(index, image))

    def program(self, steps, first=0):
        image = encode_program(steps)
        self.done(*requests.write_steps(image, self.config.max_payload, first))
        return self.send(requests.commit_program(image))

    def put(self, address, words, token=0):
        words = np.asarray(words, np.float32)
        self.done(*requests.put_words(address, words, self.config.max_payload, token))

    def get(self, address, count, token=0):
        several = requests.get_words(address, count, self.config.max_payload, token)
        payloads = [response.payload for response in self.done(*several)]
        return np.frombuffer(b"".join(payloads), "<f4")


def layer(seed, out_features=16, in_features=20):
    return np.random.default_rng(seed).integers(-1, 2, (out_features, in_features)).astype(np.int8)


def linear_steps(config, trits, index, x, scale, *, divides):
    """The steps of one BitLinear layer, its memory's contents, and where its outputs lie."""
    builder = ProgramBuilder(config.vector)
    inputs = builder.reserve(len(x))
    s, y = builder.reserve(1), builder.reserve(len(trits))
    weight = builder.place(scale)
    builder.quantize(inputs, len(x), s)
    builder.run(index)
    builder.rescale(len(trits), s, weight, y, scale_divides=divides)
    return builder.end(), builder.contents, inputs, y
