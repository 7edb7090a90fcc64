/* Registers of fifo_port.h that a process at the other end of a socket has: the path is its number.
 * A message is the letter r or w, an offset, and the value to write; a read is answered with four
 * bytes. */

static int fifo_socket;

static void fifo_open(const char *path)
{
    fifo_socket = atoi(path);
}

static void fifo_close(void)
{
    close(fifo_socket);
}

static void fifo_message(unsigned char letter, unsigned offset, uint32_t value)
{
    unsigned char message[6];
    int n;
    message[0] = letter;
    message[1] = (unsigned char)offset;
    for (n = 0; n < 4; n++)
        message[2 + n] = (unsigned char)(value >> (8 * n));
    if (write(fifo_socket, message, sizeof message) != sizeof message)
        exit(3);
}

static uint32_t fifo_read(unsigned offset)
{
    unsigned char answer[4];
    fifo_message('r', offset, 0);
    if (read(fifo_socket, answer, sizeof answer) != sizeof answer)
        exit(3);
    return answer[0] | (uint32_t)answer[1] << 8 | (uint32_t)answer[2] << 16
           | (uint32_t)answer[3] << 24;
}

static void fifo_write(unsigned offset, uint32_t value)
{
    fifo_message('w', offset, value);
}
