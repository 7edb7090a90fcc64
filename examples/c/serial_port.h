/* The port of matmul.c that is a serial line: packets in frames of COBS. */

#ifndef SERIAL_PORT_H
#define SERIAL_PORT_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "tritloom.h"

static int serial_port;

static void port_open(const char *path)
{
    struct termios settings;
    serial_port = open(path, O_RDWR | O_NOCTTY);
    if (serial_port < 0 || tcgetattr(serial_port, &settings) != 0) {
        perror(path);
        exit(1);
    }
    cfmakeraw(&settings); /* bytes pass as they are; the speed stays */
    if (tcsetattr(serial_port, TCSANOW, &settings) != 0) {
        perror(path);
        exit(1);
    }
}

static void port_send(const uint8_t *packet, size_t bytes)
{
    uint8_t frame[TRITLOOM_FRAME_BYTES];
    const uint8_t *at = frame;
    size_t left = tritloom_frame(frame, packet, bytes);
    while (left != 0) {
        ssize_t written = write(serial_port, at, left);
        if (written < 0 && errno != EINTR) {
            fprintf(stderr, "matmul: cannot write to the port\n");
            exit(1);
        }
        if (written > 0) {
            at += written;
            left -= (size_t)written;
        }
    }
}

static void port_close(void)
{
    close(serial_port);
}

/* The bytes of the next packet; 0 if none comes in time. */
static size_t port_receive(uint8_t *packet, size_t most, int timeout_ms)
{
    static uint8_t inside[TRITLOOM_FRAME_BYTES];
    static size_t used;
    struct pollfd ready = {0, POLLIN, 0};
    uint8_t byte;
    size_t bytes;
    (void)most; /* a frame holds a packet */
    ready.fd = serial_port;
    while (poll(&ready, 1, timeout_ms) > 0) {
        if (read(serial_port, &byte, 1) != 1) {
            fprintf(stderr, "matmul: the port is gone\n");
            exit(1);
        }
        if (byte != 0) {
            if (used < sizeof inside)
                inside[used++] = byte;
            continue;
        }
        bytes = tritloom_unframe(packet, inside, used);
        used = 0;
        if (bytes != 0)
            return bytes;
    }
    return 0;
}

#endif
