"""The functions of the generated C header: packets, checksum, frames and results.

They are C99 and C++, use only libc, and are checked against `tritloom.rtl.spec` by a test. `NAME`
stands for the design's name in capitals, `name` for the name itself.
"""

__all__ = ["FRAME_MACROS", "driver_code"]

from tritloom.rtl.spec.frames import BLOCK_BYTES, CHECK_BYTES

FRAME_MACROS = (
    ("frame_check_bytes", CHECK_BYTES, "behind the COBS bytes of a frame"),
    ("frame_block_bytes", BLOCK_BYTES, "bytes other than 0 that a COBS block holds at most"),
)
"""Macros of the frames on a byte link: name, value, meaning."""

CODE = r"""
/* Functions for a driver. Byte arrays hold what goes over the link. */

/* The most bytes of a frame: both zeros, a COBS length for each block, the packet, the check. */
#define NAME_FRAME_BYTES \
    (2 + NAME_PACKET_BYTES + NAME_PACKET_BYTES / NAME_FRAME_BLOCK_BYTES + 1 \
     + NAME_FRAME_CHECK_BYTES)

/* Write a number, little end first. */
static inline void name_put(uint8_t *at, uint32_t value, int bytes)
{
    int n;
    for (n = 0; n < bytes; n++)
        at[n] = (uint8_t)(value >> (8 * n));
}

/* Read a number, little end first. */
static inline uint32_t name_get(const uint8_t *at, int bytes)
{
    uint32_t value = 0;
    int n;
    for (n = 0; n < bytes; n++)
        value |= (uint32_t)at[n] << (8 * n);
    return value;
}

/* CRC-32 of some bytes; `crc` is that of the bytes before them, 0 at the beginning. */
static inline uint32_t name_crc32(uint32_t crc, const uint8_t *data, size_t bytes)
{
    int bit;
    crc = ~crc;
    while (bytes-- != 0) {
        crc ^= *data++;
        for (bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    }
    return ~crc;
}

/* A command. A field that it does not use is 0. */
struct name_command {
    uint32_t session;         /* the session's number; RESET sets it on the device */
    uint32_t seq;             /* NAME_FIRST_SEQ after RESET, then the next number */
    uint32_t acknowledged;    /* the seq up to which every response has arrived, 0 before that */
    uint32_t opcode;
    uint32_t activation_bank; /* less than NAME_BANKS, as the result bank */
    uint32_t result_bank;
    uint32_t index;
    uint32_t count;
    uint32_t address;
    const uint8_t *payload;
    size_t bytes;             /* of the payload */
};

/* A response. */
struct name_response {
    uint32_t session;
    uint32_t seq;
    uint32_t acknowledged;
    uint32_t opcode;
    uint32_t activation_bank;
    uint32_t result_bank;
    uint32_t status;
    uint32_t expected;        /* the seq that the device waits for */
    uint32_t value;
    const uint8_t *payload;   /* in the packet that was read */
    size_t bytes;             /* of the payload */
};

/* Set `bits` bits from bit `shift` on of the `bytes` bytes at `at`; the others stay. */
static inline void name_set_bits(uint8_t *at, int bytes, int shift, int bits, uint32_t value)
{
    uint32_t mask = 0xFFFFFFFFu >> (32 - bits) << shift;
    name_put(at, (name_get(at, bytes) & ~mask) | (value << shift & mask), bytes);
}

/* Read them. */
static inline uint32_t name_get_bits(const uint8_t *at, int bytes, int shift, int bits)
{
    return name_get(at, bytes) >> shift & 0xFFFFFFFFu >> (32 - bits);
}

/* Place and size of a header's field, as the two functions above take them. */
#define NAME_REQUEST_BITS(packet, field) \
    (packet) + NAME_REQUEST_##field##_OFFSET, NAME_REQUEST_##field##_BYTES, \
        NAME_REQUEST_##field##_SHIFT, NAME_REQUEST_##field##_BITS
#define NAME_RESPONSE_BITS(packet, field) \
    (packet) + NAME_RESPONSE_##field##_OFFSET, NAME_RESPONSE_##field##_BYTES, \
        NAME_RESPONSE_##field##_SHIFT, NAME_RESPONSE_##field##_BITS

/* Write a command into `packet`, which has NAME_PACKET_BYTES; returns its bytes, or 0 if the
 * payload is too long. */
static inline size_t name_request(uint8_t *packet, const struct name_command *command)
{
    size_t length = NAME_OVERHEAD_BYTES + command->bytes;
    if (command->bytes > NAME_MAX_PAYLOAD)
        return 0;
    memset(packet, 0, NAME_HEADER_BYTES);
    name_set_bits(NAME_REQUEST_BITS(packet, LENGTH), (uint32_t)length);
    name_set_bits(NAME_REQUEST_BITS(packet, SEQ), command->seq);
    name_set_bits(NAME_REQUEST_BITS(packet, SESSION), command->session);
    name_set_bits(NAME_REQUEST_BITS(packet, ACKNOWLEDGED), command->acknowledged);
    name_set_bits(NAME_REQUEST_BITS(packet, OPCODE), command->opcode);
    name_set_bits(NAME_REQUEST_BITS(packet, ACTIVATION_BANK), command->activation_bank);
    name_set_bits(NAME_REQUEST_BITS(packet, RESULT_BANK), command->result_bank);
    name_set_bits(NAME_REQUEST_BITS(packet, INDEX), command->index);
    name_set_bits(NAME_REQUEST_BITS(packet, COUNT), command->count);
    name_set_bits(NAME_REQUEST_BITS(packet, ADDRESS), command->address);
    if (command->bytes != 0)
        memcpy(packet + NAME_HEADER_BYTES, command->payload, command->bytes);
    name_put(packet + length - NAME_CRC_BYTES,
             name_crc32(0, packet, length - NAME_CRC_BYTES), NAME_CRC_BYTES);
    return length;
}

/* Whether the checksum and the length of a packet are right. */
static inline int name_sound(const uint8_t *packet, size_t bytes)
{
    return bytes >= NAME_OVERHEAD_BYTES
        && name_get(packet + NAME_RESPONSE_LENGTH_OFFSET, NAME_RESPONSE_LENGTH_BYTES) == bytes
        && name_get(packet + bytes - NAME_CRC_BYTES, NAME_CRC_BYTES)
            == name_crc32(0, packet, bytes - NAME_CRC_BYTES);
}

/* Read the response in a packet; returns 0 if the checksum or the length is wrong. */
static inline int name_parse(struct name_response *response, const uint8_t *packet, size_t bytes)
{
    if (!name_sound(packet, bytes))
        return 0;
    response->session = name_get_bits(NAME_RESPONSE_BITS(packet, SESSION));
    response->seq = name_get_bits(NAME_RESPONSE_BITS(packet, SEQ));
    response->acknowledged = name_get_bits(NAME_RESPONSE_BITS(packet, ACKNOWLEDGED));
    response->opcode = name_get_bits(NAME_RESPONSE_BITS(packet, OPCODE));
    response->activation_bank = name_get_bits(NAME_RESPONSE_BITS(packet, ACTIVATION_BANK));
    response->result_bank = name_get_bits(NAME_RESPONSE_BITS(packet, RESULT_BANK));
    response->status = name_get_bits(NAME_RESPONSE_BITS(packet, STATUS));
    response->expected = name_get_bits(NAME_RESPONSE_BITS(packet, EXPECTED));
    response->value = name_get_bits(NAME_RESPONSE_BITS(packet, VALUE));
    response->payload = packet + NAME_HEADER_BYTES;
    response->bytes = bytes - NAME_OVERHEAD_BYTES;
    return 1;
}

/* Write the check of `bytes` bytes of COBS behind them: seven bits of their CRC-32 a byte, low
 * bits first, bit 7 set. */
static inline void name_frame_check(uint8_t *check, const uint8_t *body, size_t bytes)
{
    uint32_t crc = name_crc32(0, body, bytes);
    int n;
    for (n = 0; n < NAME_FRAME_CHECK_BYTES; n++)
        check[n] = (uint8_t)(0x80 | ((crc >> (7 * n)) & 0x7F));
}

/* Put a packet into a frame for a byte link: 0, COBS of the packet, check, 0. `frame` has
 * NAME_FRAME_BYTES; returns the bytes used. */
static inline size_t name_frame(uint8_t *frame, const uint8_t *packet, size_t bytes)
{
    size_t length_at = 1, at = 2, n;
    frame[0] = 0;
    for (n = 0; n < bytes; n++) {
        if (at - length_at == NAME_FRAME_BLOCK_BYTES + 1) {
            frame[length_at] = NAME_FRAME_BLOCK_BYTES + 1;
            length_at = at++;
        }
        if (packet[n] == 0) {
            frame[length_at] = (uint8_t)(at - length_at);
            length_at = at++;
        } else {
            frame[at++] = packet[n];
        }
    }
    frame[length_at] = (uint8_t)(at - length_at);
    name_frame_check(frame + at, frame + 1, at - 1);
    at += NAME_FRAME_CHECK_BYTES;
    frame[at++] = 0;
    return at;
}

/* Take a packet out of the bytes between two zeros; `packet` has NAME_PACKET_BYTES. Returns its
 * bytes, or 0 if the frame did not come whole. */
static inline size_t name_unframe(uint8_t *packet, const uint8_t *inside, size_t bytes)
{
    uint8_t check[NAME_FRAME_CHECK_BYTES];
    size_t at = 0, body, length, size = 0;
    if (bytes <= NAME_FRAME_CHECK_BYTES)
        return 0;
    body = bytes - NAME_FRAME_CHECK_BYTES;
    name_frame_check(check, inside, body);
    if (memcmp(check, inside + body, NAME_FRAME_CHECK_BYTES) != 0)
        return 0;
    while (at < body) {
        length = inside[at++];
        if (length == 0 || at + length - 1 > body || size + length - 1 > NAME_PACKET_BYTES)
            return 0;
        memcpy(packet + size, inside + at, length - 1);
        size += length - 1;
        at += length - 1;
        if (length != NAME_FRAME_BLOCK_BYTES + 1 && at < body) {
            if (size == NAME_PACKET_BYTES)
                return 0;
            packet[size++] = 0;
        }
    }
    return size;
}
"""

SUMS = r"""
/* Result `n` of a payload of RESULTS: two's complement, little end first. */
static inline int32_t name_result(const uint8_t *payload, size_t n)
{
    uint32_t sign = (uint32_t)1 << (8 * NAME_ACC_BYTES - 1);
    uint32_t value = name_get(payload + n * NAME_ACC_BYTES, NAME_ACC_BYTES);
    return (int32_t)((int64_t)(value ^ sign) - (int64_t)sign);
}
"""

FLOATS = r"""
/* Result `n` of a payload of RESULTS: the scaled sum of a row, float32, little end first. */
static inline float name_result(const uint8_t *payload, size_t n)
{
    uint32_t bits = name_get(payload + n * NAME_ACC_BYTES, NAME_ACC_BYTES);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
"""

SCALES = r"""
/* Write scale `n` of a payload of SCALES: float32, little end first. */
static inline void name_put_scale(uint8_t *payload, size_t n, float scale)
{
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    name_put(payload + n * NAME_SCALE_BYTES, bits, NAME_SCALE_BYTES);
}
"""


def driver_code(name: str, floats: bool = False, scales: bool = False) -> str:
    """The functions for a design of this name, whose results are sums, or else `floats`.

    With `scales` it has those of activations, too.
    """
    code = CODE + (FLOATS if floats else SUMS) + (SCALES if scales else "")
    return code.replace("NAME", name.upper()).replace("name_", f"{name}_")
