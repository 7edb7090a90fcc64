// Asks a server through server.h, and prints what comes of it.
//
// asks SOCKET SIGNALS SIZE…: for each SIZE a PRODUCTS message with the numbers 7 and SIZE, and SIZE
// bytes. Prints `ok` with the bytes of the answer and their checksum, or `no` with the error. With
// SIGNALS 1 a signal interrupts the calls of the system every millisecond.
#include <csignal>
#include <cstdlib>

#include <sys/time.h>

#include "server.h"

namespace {

void ignore(int) {}

void interrupt_every_ms() {
    struct sigaction action {};  // without SA_RESTART, so a call that waits ends with EINTR
    action.sa_handler = ignore;
    sigaction(SIGALRM, &action, nullptr);
    const itimerval every{{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &every, nullptr);
}

}  // namespace

int main(int count, char ** words) {
    if (count < 3) return 1;
    if (std::atoi(words[2])) interrupt_every_ms();
    Server server;
    if (!server.connect_to(words[1])) {
        say("%s", server.error.c_str());
        return 2;
    }
    for (int n = 3; n < count; n++) {
        const uint32_t size = uint32_t(std::atoi(words[n]));
        std::vector<int8_t> data(size);
        for (uint32_t k = 0; k < size; k++) data[k] = int8_t(k * 7 + k / 251);
        std::vector<char> answer;
        if (!server.ask(PRODUCTS, {7, size}, data, answer)) {
            std::printf("no %s\n", server.error.c_str());
            continue;
        }
        uint32_t checksum = 1;
        for (char byte : answer) checksum = checksum * 31 + uint8_t(byte);
        std::printf("ok %zu %u\n", answer.size(), checksum);
    }
}
