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

enum Kind : uint32_t { ERROR, INFO, LOAD, UNLOAD, PRODUCTS, FITS };
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

    // Send a message made of two parts, and take the answer's body.
    bool ask(Kind kind, const std::vector<uint32_t> & numbers, const std::vector<int8_t> & data,
             std::vector<char> & answer) {
        if (lost) return false;
        Header header{MAGIC, kind, 4 * numbers.size() + data.size()};
        bool sent = put(&header, sizeof header) && put(numbers.data(), 4 * numbers.size()) &&
                    put(data.data(), data.size());
        if (!sent || !get(&header, sizeof header)) return lose("the server has gone");
        if (header.magic != MAGIC) return lose("the server speaks another protocol");
        answer.resize(header.size);
        if (!get(answer.data(), header.size)) return lose("the server has gone");
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
    bool put(const void * data, size_t size) {
        for (auto * at = static_cast<const char *>(data); size > 0;) {
            const ssize_t sent = send(link_, at, size, MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            if (sent <= 0) return false;
            at += sent, size -= size_t(sent);
        }
        return true;
    }
    bool get(void * data, size_t size) {
        for (auto * at = static_cast<char *>(data); size > 0;) {
            const ssize_t got = recv(link_, at, size, 0);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) return false;
            at += got, size -= size_t(got);
        }
        return true;
    }
};

}  // namespace
