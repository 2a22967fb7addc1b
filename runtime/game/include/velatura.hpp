/* velatura.hpp: velatura.h for C++11 and later. Read velatura.h first: the calls and their meaning are its.

   In ONE source file:    #define VELATURA_IMPLEMENTATION
                          #include "velatura.hpp"

       velatura::Client client("game");
       velatura_frame frame = {};
       ...
       std::vector<unsigned char> out;
       velatura::Picture picture = client.process(frame, out);    out has grown to the picture

   Throws only where a program is wrong or out of memory: std::invalid_argument for a name that breaks
   VELATURA_NAME_RULE, std::bad_alloc. A missing, dead or late server is a status, never an exception.
   Licence: Apache-2.0. */

#ifndef VELATURA_HPP
#define VELATURA_HPP

#include "velatura.h"

#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace velatura {

/* What a call gave, and the size that was written. */
struct Picture {
    velatura_status status;
    std::uint32_t width, height;

    /* The models made it. */
    explicit operator bool() const noexcept { return status == VELATURA_DONE; }
};

struct Size {
    std::uint32_t width, height;
};

/* Owns a client. Moves, does not copy; one thread's at a time. */
class Client {
public:
    explicit Client(const std::string &name, velatura_options options = velatura_options())
        : client_(name.find('\0') == std::string::npos ? velatura_open(name.c_str(), &options) : nullptr) {
        if (client_) return;
        if (name.find('\0') != std::string::npos || !velatura_name_is_valid(name.c_str()))
            throw std::invalid_argument("velatura: " VELATURA_NAME_RULE);
        throw std::bad_alloc();
    }

    ~Client() { velatura_close(client_); }

    Client(Client &&other) noexcept : client_(other.client_) { other.client_ = nullptr; }

    Client &operator=(Client &&other) noexcept {
        if (this != &other) {
            velatura_close(client_);
            client_ = other.client_;
            other.client_ = nullptr;
        }
        return *this;
    }

    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;

    /* For the C functions. Null only after a move from it. */
    velatura_client *get() const noexcept { return client_; }

    bool wait(std::uint32_t timeout_us) { return velatura_wait(client_, timeout_us) == VELATURA_OK; }
    bool connected() { return velatura_connected(client_) != 0; }
    std::string error() const { return velatura_error(client_); }
    std::string models() const { return velatura_models(client_); }

    Size output_size(std::uint32_t width, std::uint32_t height) const noexcept {
        Size size = {width, height};
        velatura_output_size(client_, width, height, &size.width, &size.height);
        return size;
    }

    /* velatura_process into memory of your own. */
    velatura_status process(const velatura_frame &frame, velatura_picture &picture) {
        return velatura_process(client_, &frame, &picture);
    }

    /* velatura_process into a vector of packed rows (not the frame's own), which gets the picture's size:
       with the same vector each frame, that allocates once. */
    Picture process(const velatura_frame &frame, std::vector<unsigned char> &out) {
        velatura_view view;
        const velatura_status status = velatura_process_view(client_, &frame, &view);
        copy(view, out);
        return Picture{status, view.width, view.height};
    }

    /* velatura_process without the copy out. */
    velatura_status process(const velatura_frame &frame, velatura_view &view) {
        return velatura_process_view(client_, &frame, &view);
    }

    velatura_status submit(const velatura_frame &frame) { return velatura_submit(client_, &frame); }

    /* velatura_collect into memory of your own. */
    velatura_status collect(velatura_picture &picture, std::uint32_t timeout_us = 0) {
        return velatura_collect(client_, &picture, timeout_us);
    }

    /* velatura_collect into a vector, untouched when the frame is late or there is none. */
    Picture collect(std::vector<unsigned char> &out, std::uint32_t timeout_us = 0) {
        velatura_view view;
        const velatura_status status = velatura_result(client_, &view, timeout_us);
        if (status != VELATURA_LATE && status != VELATURA_EMPTY) copy(view, out);
        return Picture{status, view.width, view.height};
    }

    velatura_status begin(velatura_frame &frame, velatura_canvas &canvas) {
        return velatura_begin(client_, &frame, &canvas);
    }

    velatura_status result(velatura_view &view, std::uint32_t timeout_us = 0) {
        return velatura_result(client_, &view, timeout_us);
    }

private:
    static void copy(const velatura_view &view, std::vector<unsigned char> &out) {
        const std::size_t row = static_cast<std::size_t>(view.width) * 4;
        const unsigned char *from = static_cast<const unsigned char *>(view.pixels);
        out.clear();
        out.reserve(row * view.height);
        for (std::uint32_t y = 0; y < view.height; y++, from += view.stride)
            out.insert(out.end(), from, from + row);
    }

    velatura_client *client_;
};

} // namespace velatura

#endif /* VELATURA_HPP */
