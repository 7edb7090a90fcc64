// The messages to `tritloom serve`; host/serve/wire.py describes them.
#pragma once

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

// A line on standard error, in one write: other threads write there too.
void say(const char * format, ...) {
    char line[1024] = "tritloom: ";
    const size_t begin = std::strlen(line);
    std::va_list values;
    va_start(values, format);
    std::vsnprintf(line + begin, sizeof line - begin - 1, format, values);
    va_end(values);
    std::strcat(line, "\n");
    std::fwrite(line, 1, std::strlen(line), stderr);
}

enum Kind : uint32_t { ERROR, INFO, LOAD, UNLOAD, PRODUCTS, FITS, LOAD_SCALED, SCALED };
constexpr uint32_t MAGIC = 0x31574c54;

struct Header {
    uint32_t magic, kind;
    uint64_t size;
};

// The connection to `tritloom serve`. After `lost`, nothing works any more.
class Server {
  public:
    std::string error;  // of the last message that was refused, or of the loss
    bool lost = false;

    bool connect_to(const char * path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (std::strlen(path) >= sizeof address.sun_path) {
            error = std::string(path) + ": the path of a socket cannot be so long";
            return false;
        }
        std::strcpy(address.sun_path, path);
        link_ = socket(AF_UNIX, SOCK_STREAM, 0);
        if (link_ < 0 || connect(link_, reinterpret_cast<sockaddr *>(&address), sizeof address)) {
            error = std::string(path) + ": " + std::strerror(errno) + "; start tritloom serve there";
            return false;
        }
        return true;
    }

    // Send a message made of two parts, and take the answer's body. A product takes one call of the
    // system each way.
    bool ask(Kind kind, const std::vector<uint32_t> & numbers, const std::vector<int8_t> & data,
             std::vector<char> & answer) {
        if (lost) return false;
        Header header{MAGIC, kind, 4 * numbers.size() + data.size()};
        iovec parts[] = {{&header, sizeof header},
                         {const_cast<uint32_t *>(numbers.data()), 4 * numbers.size()},
                         {const_cast<int8_t *>(data.data()), data.size()}};
        if (!put(parts, 3)) return lose("the server has gone");
        // The server sends nothing without a question, so all that comes is of this answer.
        char first[1 << 16];
        size_t got = 0;
        if (!get(first, sizeof header, sizeof first, got)) return lose("the server has gone");
        std::memcpy(&header, first, sizeof header);
        got -= sizeof header;
        if (header.magic != MAGIC || got > header.size) return lose("the server speaks another protocol");
        answer.resize(header.size);
        std::memcpy(answer.data(), first + sizeof header, got);
        if (!get(answer.data(), header.size, header.size, got)) return lose("the server has gone");
        if (header.kind == ERROR) {
            error.assign(answer.begin(), answer.end());
            return false;
        }
        return true;
    }

    ~Server() {
        if (link_ >= 0) close(link_);
    }

  private:
    int link_ = -1;

    bool lose(const char * why) {
        error = std::string(why) + "; start tritloom serve, then this program again";
        lost = true;
        return false;
    }
    // Send all parts.
    bool put(iovec * parts, int count) {
        while (count > 0) {
            msghdr message{};
            message.msg_iov = parts, message.msg_iovlen = size_t(count);
            ssize_t sent = sendmsg(link_, &message, MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent <= 0) return false;
            for (; count > 0 && size_t(sent) >= parts->iov_len; parts++, count--) sent -= ssize_t(parts->iov_len);
            if (count > 0) parts->iov_base = static_cast<char *>(parts->iov_base) + sent, parts->iov_len -= size_t(sent);
        }
        return true;
    }
    // Receive until `got` is at least `least` bytes; there is room for `most`.
    bool get(char * data, size_t least, size_t most, size_t & got) {
        while (got < least) {
            const ssize_t count = recv(link_, data + got, most - got, 0);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) return false;
            got += size_t(count);
        }
        return true;
    }
};

}  // namespace
