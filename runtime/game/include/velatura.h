/* velatura.h: frames of a game through velatura's models, over shared memory. C99, also C++11 and later.

   Start a server:        velatura serve --shm game -m wave
   In ONE source file:    #define VELATURA_IMPLEMENTATION
                          #include "velatura.h"         before any other header, or compile with -D_GNU_SOURCE
   Everywhere else:       #include "velatura.h"
   Then, once a frame:

       velatura_client *client = velatura_open("game", NULL);
       ...
       velatura_frame frame = {0};
       frame.pixels = pixels;                           RGBA, 8 bits a channel
       frame.width = 1280; frame.height = 720;
       frame.motion = motion;                           optional: makes the result hold still
       velatura_picture picture = {0};
       picture.pixels = out; picture.bytes = sizeof out;
       velatura_process(client, &frame, &picture);      `out` holds a picture now, whatever happened
       ...
       velatura_close(client);

   A game never stops for velatura. With no server, a dead or a late one, frames pass through unchanged,
   no call waits longer than its deadline, and a server that starts (again) is found within half a second. The
   first frames after connecting, one for each entry of the ring (three), and the first of a larger size, need
   memory from the system, some milliseconds at 1920x1080: it may take half of a deadline, and what is missing
   then is had by the next frames, until which they pass. Send the first ones while the game loads.

   The functions are external, in the one file with VELATURA_IMPLEMENTATION: engines link objects of many
   files and languages, which must share one copy. Define VELATURA_STATIC as well for a private copy.

   No global state. A client belongs to one thread at a time; any number of clients may live in a process.
   After fork() use and close a client in one of the two processes only.

   Needs Linux, 64 bits, little-endian, gcc or clang. layout.md beside this file documents the memory's
   layout and what other systems would need. Licence: Apache-2.0. */

#ifndef VELATURA_H
#define VELATURA_H

#if defined(VELATURA_IMPLEMENTATION) && !defined(__cplusplus)
/* -std=c99 hides what POSIX and Linux add; ask before the first header of libc is read. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1
#endif
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VELATURA_VERSION_MAJOR 1 /* of the layout: both sides must have the same */
#define VELATURA_VERSION_MINOR 0 /* additions that an older other side may ignore */
#define VELATURA_VERSION (((uint32_t)VELATURA_VERSION_MAJOR << 16) | (uint32_t)VELATURA_VERSION_MINOR)

#define VELATURA_NAME_MOST 64 /* characters of a server's name */
#define VELATURA_NAME_RULE                                                                             \
    "a name is 1 to 64 of A-Z a-z 0-9 _ . - and does not begin with a dot or a dash"

#ifdef VELATURA_STATIC
#define VELATURA_DEF static __attribute__((unused))
#else
#define VELATURA_DEF extern
#endif

/* ---- What a call came to ------------------------------------------------------------------------ */

typedef enum velatura_status {
    VELATURA_OK = 0,      /* begin, submit, wait: done as asked */
    VELATURA_DONE = 1,    /* the picture is what the models made of the frame */
    VELATURA_PASSED = 2,  /* the picture is the frame itself: models are off, still opening, or late */
    VELATURA_REFUSED = 3, /* a descriptor is wrong, see velatura_error; the picture is the frame itself */
    VELATURA_GONE = 4,    /* no server, or one of another version; the picture is the frame itself */
    VELATURA_BUSY = 5,    /* submit, begin: as many frames as the ring holds are on their way already, or the
                             memory for this one is not all there yet */
    VELATURA_LATE = 6,    /* result, collect: not ready within the time given; ask again */
    VELATURA_EMPTY = 7    /* result, collect: no frame is on its way */
} velatura_status;

/* "done", "passed", ...: for a log or an overlay. */
VELATURA_DEF const char *velatura_status_text(velatura_status status);

/* ---- Frames and pictures ------------------------------------------------------------------------ */

/* Of velatura_frame.format. Four bytes a pixel, sRGB; the fourth, alpha, comes back as it was. */
#define VELATURA_RGBA8 1u
#define VELATURA_BGRA8 2u

/* Of velatura_frame.flags. */
#define VELATURA_RESET 1u                  /* a cut: nothing of the frame before is in this one */
#define VELATURA_HAS_MOTION 2u             /* set for you where `motion` is given; velatura_begin reads it */
#define VELATURA_HAS_DEPTH 4u              /* likewise */
#define VELATURA_HAS_REACTIVE 8u           /* likewise */
#define VELATURA_FLIPPED 16u               /* the first row is the lowest (OpenGL), here and in the result */
#define VELATURA_MOTION_JITTERED 32u       /* the motion vectors contain the jitter */
#define VELATURA_DEPTH_REVERSED 64u        /* device depth with 1 at the near plane */
#define VELATURA_DEPTH_DEVICE 128u         /* what a depth buffer holds; without: linear, larger = farther */
#define VELATURA_MOTION_FROM_PREVIOUS 256u /* motion points from the frame before to this one */
#define VELATURA_BYPASS 512u               /* give the frame back as it is */

/* One frame of the game. Zero it, then set what you have: zero means the default, everywhere. */
typedef struct velatura_frame {
    const void *pixels;       /* colour, the upper left pixel first */
    uint32_t width, height;   /* in pixels */
    uint32_t stride;          /* bytes from row to row; 0: width * 4 */
    uint32_t format;          /* VELATURA_RGBA8 (also 0) or VELATURA_BGRA8 */
    uint32_t flags;           /* VELATURA_RESET, ... */
    const float *motion;      /* (x, y) a pixel, rows packed: times motion_scale it is pixels of the colour
                                 picture, x right, y DOWN, from a pixel's place now to where it was in the
                                 frame before */
    uint32_t motion_width, motion_height; /* 0: as the colour picture */
    float motion_scale_x, motion_scale_y; /* 0: 1. Vectors in -1..1 with y up: width / 2, -height / 2 */
    const float *depth;       /* one a pixel, rows packed: linear, any unit, or VELATURA_DEPTH_DEVICE */
    uint32_t depth_width, depth_height;   /* 0: as the colour picture */
    float depth_near, depth_far;          /* of device depth: distances of its two planes; 0: 0.1, 1000 */
    const uint8_t *reactive;  /* one a pixel, rows packed: 255 where the frame before says nothing of this
                                 one (particles, water, screens in the scene) */
    uint32_t reactive_width, reactive_height; /* 0: as the colour picture */
    float jitter_x, jitter_y; /* the camera's shift of this frame, in pixels */
    uint32_t deadline_us;     /* from the call on; 0: that of the client's options */
} velatura_frame;

/* Where a picture goes. The pixels come in the frame's own format, flipped if the frame was. */
typedef struct velatura_picture {
    void *pixels;           /* may be the frame's own pixels, where the size stays the same */
    size_t bytes;           /* room at `pixels` */
    uint32_t stride;        /* bytes from row to row; 0: width * 4 */
    uint32_t width, height; /* 0: filled in with the size that came. Else the size you want: a picture of
                               another size, such as a frame that passes an upscaler, is scaled to it */
} velatura_picture;

/* A result where it lies in shared memory. */
typedef struct velatura_view {
    const void *pixels;     /* until velatura_begin or velatura_submit comes round to its place in the ring,
                               two frames later at least, even if the server ends meanwhile; or until
                               velatura_close, or a velatura_wait that finds another server */
    uint32_t width, height, stride, format;
    uint64_t sequence;      /* counts the frames that were sent */
    uint64_t latency_ns;    /* from submit to the server's answer */
    float work_ms;          /* of it, in the models */
} velatura_view;

/* Where to draw a frame, inside the shared memory. NULL where the frame's flags do not ask for it. */
typedef struct velatura_canvas {
    void *pixels;
    float *motion;
    float *depth;
    uint8_t *reactive;
} velatura_canvas;

/* ---- A client ----------------------------------------------------------------------------------- */

typedef struct velatura_options {
    uint32_t deadline_us; /* longest wait of velatura_process for one frame; 0: 100000 */
    uint32_t retry_us;    /* while there is no server, look for one this often; 0: 500000 */
} velatura_options;

typedef struct velatura_client velatura_client;

/* 1 if `name` keeps to VELATURA_NAME_RULE. */
VELATURA_DEF int velatura_name_is_valid(const char *name);

/* A client of the server called `name`; options may be NULL. It works with no server running.
   NULL only if the name breaks VELATURA_NAME_RULE, or there is no memory. */
VELATURA_DEF velatura_client *velatura_open(const char *name, const velatura_options *options);

/* Leaves the server and frees the client and its views. NULL is allowed. */
VELATURA_DEF void velatura_close(velatura_client *client);

/* VELATURA_OK once a server is there, else VELATURA_GONE after `timeout_us`. For loading screens, tests. */
VELATURA_DEF velatura_status velatura_wait(velatura_client *client, uint32_t timeout_us);

/* 1 while a living server has a place for this client. Does not look for a new one. */
VELATURA_DEF int velatura_connected(velatura_client *client);

/* What last went wrong, in one sentence; "" if nothing did. Never NULL; until the next call. */
VELATURA_DEF const char *velatura_error(const velatura_client *client);

/* What the server calls its models; "" while there is none. */
VELATURA_DEF const char *velatura_models(const velatura_client *client);

/* The largest frame the server takes, and by how much a side of it may grow. All 1 without a server. */
VELATURA_DEF void velatura_limits(const velatura_client *client, uint32_t *width, uint32_t *height,
                                  uint32_t *scale);

/* The size that results of such frames last had; before the first one, the frame's own. */
VELATURA_DEF void velatura_output_size(const velatura_client *client, uint32_t width, uint32_t height,
                                       uint32_t *out_width, uint32_t *out_height);

/* ---- One call a frame --------------------------------------------------------------------------- */

/* Sends a frame, waits for its result at most until the deadline, and writes a picture: the result, or the
   frame itself. VELATURA_DONE, _PASSED, _REFUSED or _GONE. Nothing is written only if the picture
   has no room for it, or the frame has no pixels (VELATURA_REFUSED). Results of earlier frames that
   nobody collected are dropped. */
VELATURA_DEF velatura_status velatura_process(velatura_client *client, const velatura_frame *frame,
                                              velatura_picture *picture);

/* The same without the copy out: shows where the result lies in shared memory, or the frame itself. */
VELATURA_DEF velatura_status velatura_process_view(velatura_client *client, const velatura_frame *frame,
                                                   velatura_view *view);

/* ---- Pipelined: send this frame, show the one before -------------------------------------------- */

/* Sends a frame and comes back at once. VELATURA_OK, or _BUSY, _REFUSED, _GONE: it was not sent, show it
   as it is. */
VELATURA_DEF velatura_status velatura_submit(velatura_client *client, const velatura_frame *frame);

/* The result of the oldest frame on its way, waiting at most `timeout_us` (0: not at all), copied out.
   VELATURA_DONE, _PASSED, _REFUSED, or _GONE if the server died over it, with the frame as the picture;
   _LATE or _EMPTY with nothing written. */
VELATURA_DEF velatura_status velatura_collect(velatura_client *client, velatura_picture *picture,
                                              uint32_t timeout_us);

/* ---- Without copies ----------------------------------------------------------------------------- */

/* Gives places in shared memory to draw the next frame into, for the frame's size and its HAS_ flags, and
   enters them in `frame`. Draw, then velatura_submit(client, frame). VELATURA_OK, or _BUSY, _REFUSED,
   _GONE with NULLs in the canvas and in `frame`. */
VELATURA_DEF velatura_status velatura_begin(velatura_client *client, velatura_frame *frame,
                                            velatura_canvas *canvas);

/* As velatura_collect, but shows where the result lies instead of copying it. */
VELATURA_DEF velatura_status velatura_result(velatura_client *client, velatura_view *view,
                                             uint32_t timeout_us);

/* ---- The layout of the shared memory, version 1.0; layout.md explains it ------------------------- */

#define VELATURA_SHM_MAGIC "VELATURA"
#define VELATURA_SHM_PAGE 4096u
#define VELATURA_SHM_RING_MOST 15u
#define VELATURA_SHM_SIDE_MOST 16384u
#define VELATURA_SHM_SCALE_MOST 8u
#define VELATURA_SHM_SLOTS_MOST 256u
/* Locked bytes, far behind the file's end: the server's, then one for each slot's client. */
#define VELATURA_SHM_LOCKS ((uint64_t)1 << 62)

typedef struct velatura_shm_header {
    char magic[8];
    uint32_t version_major, version_minor;
    uint32_t header_bytes, slot_count, ring, state;
    uint64_t file_bytes, slots_offset, slot_stride;
    uint32_t max_width, max_height, max_scale;
    uint32_t doorbell;
    uint32_t server_pid, flags;
    uint64_t session, heartbeat_ns;
    char title[64];
} velatura_shm_header;

typedef struct velatura_shm_entry {
    uint64_t sequence;
    uint32_t width, height, stride, format, flags;
    uint32_t motion_width, motion_height, depth_width, depth_height, reactive_width, reactive_height;
    float jitter_x, jitter_y, motion_scale_x, motion_scale_y, depth_near, depth_far;
    uint32_t deadline_us;
    uint64_t submitted_ns;
    uint8_t reserved_1[40];
    uint64_t result_sequence;
    uint32_t status, out_width, out_height, out_stride, out_area, reserved_2;
    uint64_t completed_ns;
    float work_ms;
    uint8_t reserved_3[84];
} velatura_shm_entry;

typedef struct velatura_shm_slot {
    uint32_t state, client_pid, client_version, generation;
    uint32_t submitted, completed, error_count, reserved;
    char message[96];
    velatura_shm_entry entries[VELATURA_SHM_RING_MOST];
} velatura_shm_slot;

/* C99 has no _Static_assert: an array of -1 elements is the oldest one. */
#define VELATURA_I_AT(kind, field, at)                                                                 \
    typedef char velatura_i_at_##kind##_##field[offsetof(velatura_shm_##kind, field) == (at) ? 1 : -1]
VELATURA_I_AT(header, magic, 0);
VELATURA_I_AT(header, version_major, 8);
VELATURA_I_AT(header, version_minor, 12);
VELATURA_I_AT(header, header_bytes, 16);
VELATURA_I_AT(header, slot_count, 20);
VELATURA_I_AT(header, ring, 24);
VELATURA_I_AT(header, state, 28);
VELATURA_I_AT(header, file_bytes, 32);
VELATURA_I_AT(header, slots_offset, 40);
VELATURA_I_AT(header, slot_stride, 48);
VELATURA_I_AT(header, max_width, 56);
VELATURA_I_AT(header, max_height, 60);
VELATURA_I_AT(header, max_scale, 64);
VELATURA_I_AT(header, doorbell, 68);
VELATURA_I_AT(header, server_pid, 72);
VELATURA_I_AT(header, flags, 76);
VELATURA_I_AT(header, session, 80);
VELATURA_I_AT(header, heartbeat_ns, 88);
VELATURA_I_AT(header, title, 96);
VELATURA_I_AT(slot, state, 0);
VELATURA_I_AT(slot, client_pid, 4);
VELATURA_I_AT(slot, client_version, 8);
VELATURA_I_AT(slot, generation, 12);
VELATURA_I_AT(slot, submitted, 16);
VELATURA_I_AT(slot, completed, 20);
VELATURA_I_AT(slot, error_count, 24);
VELATURA_I_AT(slot, message, 32);
VELATURA_I_AT(slot, entries, 128);
VELATURA_I_AT(entry, sequence, 0);
VELATURA_I_AT(entry, width, 8);
VELATURA_I_AT(entry, height, 12);
VELATURA_I_AT(entry, stride, 16);
VELATURA_I_AT(entry, format, 20);
VELATURA_I_AT(entry, flags, 24);
VELATURA_I_AT(entry, motion_width, 28);
VELATURA_I_AT(entry, motion_height, 32);
VELATURA_I_AT(entry, depth_width, 36);
VELATURA_I_AT(entry, depth_height, 40);
VELATURA_I_AT(entry, reactive_width, 44);
VELATURA_I_AT(entry, reactive_height, 48);
VELATURA_I_AT(entry, jitter_x, 52);
VELATURA_I_AT(entry, jitter_y, 56);
VELATURA_I_AT(entry, motion_scale_x, 60);
VELATURA_I_AT(entry, motion_scale_y, 64);
VELATURA_I_AT(entry, depth_near, 68);
VELATURA_I_AT(entry, depth_far, 72);
VELATURA_I_AT(entry, deadline_us, 76);
VELATURA_I_AT(entry, submitted_ns, 80);
VELATURA_I_AT(entry, result_sequence, 128);
VELATURA_I_AT(entry, status, 136);
VELATURA_I_AT(entry, out_width, 140);
VELATURA_I_AT(entry, out_height, 144);
VELATURA_I_AT(entry, out_stride, 148);
VELATURA_I_AT(entry, out_area, 152);
VELATURA_I_AT(entry, completed_ns, 160);
VELATURA_I_AT(entry, work_ms, 168);
typedef char velatura_i_entry_bytes[sizeof(velatura_shm_entry) == 256 ? 1 : -1];

#ifdef __cplusplus
}
#endif
#endif /* VELATURA_H */

/* ================================================================================================== */
#if defined(VELATURA_IMPLEMENTATION) && !defined(VELATURA_IMPLEMENTED)
#define VELATURA_IMPLEMENTED

#if !defined(__linux__) || !defined(__LP64__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "velatura.h works on 64-bit little-endian Linux only; layout.md says what other systems need"
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#if !defined(O_CLOEXEC) || !defined(O_NOFOLLOW) || !defined(CLOCK_MONOTONIC)
#error "include velatura.h before any other header in this file, or compile with -D_GNU_SOURCE"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VELATURA_I_FOLDER "/dev/shm/velatura-"
/* libc shows these under _GNU_SOURCE only; they are the kernel's ABI. */
#define VELATURA_I_OFD_GETLK 36
#define VELATURA_I_OFD_SETLK 37
#define VELATURA_I_FUTEX_WAIT 0
#define VELATURA_I_FUTEX_WAKE 1
/* Longest sleep before it is seen whether the server lives: well within a frame's deadline. */
#define VELATURA_I_SLICE_NS 20000000u
/* With frames in time nobody sleeps so long; then the lock is asked about this often, for a microsecond. */
#define VELATURA_I_CHECK_NS 100000000u
/* Frames after the loss of a server for which the memory stays: as long as a view of it may be shown. */
#define VELATURA_I_KEPT 2u
/* Memory is asked for in pieces: fallocate() takes back all of its work when a signal comes, and where a
   profiler's timer rings every millisecond one large piece would never be had. */
#define VELATURA_I_PIECE ((uint64_t)1 << 20)
#define VELATURA_I_TRIES 100
#define VELATURA_I_POPULATE_WRITE 23 /* of madvise(), Linux 5.14 */

enum { VELATURA_I_COLOUR, VELATURA_I_OUTPUT, VELATURA_I_MOTION, VELATURA_I_DEPTH, VELATURA_I_REACTIVE };

typedef struct velatura_i_place { /* what this side knows of a ring entry; nothing here is shared */
    uint32_t width, height, stride, format;
    uint64_t committed[5]; /* bytes of each area that have memory behind them */
} velatura_i_place;

struct velatura_client {
    char path[sizeof(VELATURA_I_FOLDER) + VELATURA_NAME_MOST];
    const char *name; /* the end of the path */
    char error[320];
    velatura_options options;
    int fd;    /* -1: no server */
    int lost;  /* the server is gone; the mapping and the slot's lock stay for a while, for views */
    int begun; /* a canvas was given out */
    int counted;    /* velatura_begin has counted the next frame */
    uint32_t later; /* frames since the server was lost */
    int fresh; /* nothing sent yet: the first frame has none before it */
    uint64_t retry_ns, check_ns;
    velatura_shm_header *header;
    velatura_shm_slot *slot;
    unsigned char *areas; /* just behind the slot's control page */
    uint64_t slot_bytes, slot_offset, file_bytes, areas_bytes, area_at[5], area_bytes[5];
    uint32_t slot_index, ring, generation, errors, max_width, max_height, max_scale;
    uint64_t next, done, taken;                          /* frames sent, completed, collected or dropped */
    uint32_t in_width, in_height, out_width, out_height; /* of the last result */
    char models[64];
    velatura_i_place places[VELATURA_SHM_RING_MOST];
};

typedef char velatura_i_off_t[sizeof(off_t) == 8 ? 1 : -1];

__attribute__((format(printf, 2, 3))) static void velatura_i_say(velatura_client *c, const char *format,
                                                                 ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->error, sizeof c->error, format, arguments);
    va_end(arguments);
}

static uint64_t velatura_i_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t velatura_i_get(const uint32_t *shared) {
    return __atomic_load_n(shared, __ATOMIC_ACQUIRE);
}

static uint64_t velatura_i_get64(const uint64_t *shared) {
    return __atomic_load_n(shared, __ATOMIC_ACQUIRE);
}

static void velatura_i_put(uint32_t *shared, uint32_t value) {
    __atomic_store_n(shared, value, __ATOMIC_RELEASE);
}

/* The other side may write while this reads: one read of each byte, and an end of its own. */
static void velatura_i_text(char *to, size_t room, const char *shared, size_t bytes) {
    size_t n = 0;
    while (n + 1 < room && n < bytes) {
        const char letter = __atomic_load_n(shared + n, __ATOMIC_RELAXED);
        if (letter == 0) break;
        to[n++] = (unsigned char)letter < 32 || letter == 127 ? '?' : letter;
    }
    to[n] = 0;
}

static int velatura_i_lock(int fd, int command, short type, uint64_t at, short *found) {
    struct flock lock;
    memset(&lock, 0, sizeof lock); /* such locks want l_pid to be 0 */
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)at;
    lock.l_len = 1;
    const int result = fcntl(fd, command, &lock);
    if (found) *found = lock.l_type;
    return result;
}

/* Whether the server lives: its lock vanishes with its process, however that ends. */
static int velatura_i_lives(int fd) {
    short found = F_UNLCK;
    const int result = velatura_i_lock(fd, VELATURA_I_OFD_GETLK, F_WRLCK, VELATURA_SHM_LOCKS, &found);
    return result == 0 && found != F_UNLCK;
}

static void velatura_i_wake(uint32_t *shared) {
    syscall(SYS_futex, shared, VELATURA_I_FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

/* Somebody came or went. */
static void velatura_i_ring(velatura_shm_header *header) {
    __atomic_add_fetch(&header->doorbell, 1, __ATOMIC_SEQ_CST);
    velatura_i_wake(&header->doorbell);
}

/* A dead server's name is removed, so that nothing leaks; not a new server's, which may have taken the name
   meanwhile. Whoever removes a file holds its server's lock for it, so that the name cannot change here. */
static void velatura_i_unlink(const velatura_client *c, int fd) {
    struct stat ours, named;
    if (velatura_i_lock(fd, VELATURA_I_OFD_SETLK, F_WRLCK, VELATURA_SHM_LOCKS, NULL) != 0) return;
    if (fstat(fd, &ours) == 0 && lstat(c->path, &named) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev)
        unlink(c->path);
    velatura_i_lock(fd, VELATURA_I_OFD_SETLK, F_UNLCK, VELATURA_SHM_LOCKS, NULL);
}

/* The server sees the lock gone and frees the slot, just as if this process had died. */
static void velatura_i_leave(velatura_client *c) {
    velatura_i_lock(c->fd, VELATURA_I_OFD_SETLK, F_UNLCK, VELATURA_SHM_LOCKS + 1 + c->slot_index, NULL);
    velatura_i_ring(c->header);
}

static void velatura_i_detach(velatura_client *c) {
    if (c->fd < 0) return;
    velatura_i_leave(c);
    munmap(c->slot, (size_t)c->slot_bytes);
    munmap(c->header, VELATURA_SHM_PAGE);
    close(c->fd);
    c->fd = -1;
    c->lost = c->begun = 0;
    c->next = c->done = c->taken = 0;
    c->models[0] = 0;
}

/* The server is of no use any more. What lies in the mapping may still be looked at, so that the place is not
   left yet: one that lives would give the memory back. */
static void velatura_i_lose(velatura_client *c, const char *why) {
    if (c->lost) return;
    velatura_i_say(c, "%s: %s; frames pass until a server is there", c->name, why);
    /* Another server may have the name already; one that lives and errs is given time. */
    c->retry_ns = velatura_i_now() + (uint64_t)c->options.retry_us * 1000u;
    if (!velatura_i_lives(c->fd)) {
        velatura_i_unlink(c, c->fd);
        c->retry_ns = 0;
    }
    c->lost = 1;
    c->later = 0;
}

/* Reads a header once, checks all of it, and enters it in the client. The number of slots, or -1 and the
   reason in error. */
static int velatura_i_read_header(velatura_client *c, const velatura_shm_header *h, uint64_t bytes) {
    static const uint64_t pixel_bytes[5] = {4, 4, 8, 4, 1};
    const uint64_t page = VELATURA_SHM_PAGE;
    uint64_t magic, at = 0;
    memcpy(&magic, VELATURA_SHM_MAGIC, sizeof magic);
    if (velatura_i_get64((const uint64_t *)(const void *)h->magic) != magic) {
        velatura_i_say(c, "%s: %s is no memory of velatura's", c->name, c->path);
        return -1;
    }
    const uint32_t major = velatura_i_get(&h->version_major), minor = velatura_i_get(&h->version_minor);
    if (major != VELATURA_VERSION_MAJOR) {
        velatura_i_say(c,
                       "%s: the server speaks version %u.%u of the layout, this program %d.%d: take "
                       "velatura.h and velatura from the same release",
                       c->name, (unsigned)major, (unsigned)minor, VELATURA_VERSION_MAJOR,
                       VELATURA_VERSION_MINOR);
        return -1;
    }
    const uint32_t count = velatura_i_get(&h->slot_count);
    const uint64_t slots = velatura_i_get64(&h->slots_offset), stride = velatura_i_get64(&h->slot_stride);
    c->ring = velatura_i_get(&h->ring);
    c->max_width = velatura_i_get(&h->max_width);
    c->max_height = velatura_i_get(&h->max_height);
    c->max_scale = velatura_i_get(&h->max_scale);
    c->file_bytes = velatura_i_get64(&h->file_bytes);
    int fits = velatura_i_get(&h->header_bytes) == page && c->file_bytes <= bytes && count >= 1 &&
               count <= VELATURA_SHM_SLOTS_MOST && c->ring >= 1 && c->ring <= VELATURA_SHM_RING_MOST &&
               c->max_width >= 1 && c->max_width <= VELATURA_SHM_SIDE_MOST && c->max_height >= 1 &&
               c->max_height <= VELATURA_SHM_SIDE_MOST && c->max_scale >= 1 &&
               c->max_scale <= VELATURA_SHM_SCALE_MOST && slots >= page && slots <= c->file_bytes &&
               slots % page == 0 && stride % page == 0 && stride <= (c->file_bytes - slots) / count;
    for (int area = 0; fits && area < 5; area++) {
        const uint64_t scale = area == VELATURA_I_OUTPUT ? c->max_scale : 1;
        c->area_bytes[area] = scale * scale * c->max_width * c->max_height * pixel_bytes[area];
        c->area_at[area] = at;
        at += (c->area_bytes[area] + page - 1) / page * page;
    }
    c->areas_bytes = at;
    c->slot_offset = slots;
    c->slot_bytes = stride;
    if (fits && page + c->ring * at <= stride) return (int)count;
    velatura_i_say(c, "%s: the header of its memory contradicts itself", c->name);
    return -1;
}

/* Takes a free slot of a mapped header. 1, or 0 and the reason in error. */
static int velatura_i_take_slot(velatura_client *c, int fd, velatura_shm_header *header, uint32_t count) {
    for (uint32_t k = 0; k < count; k++) {
        const uint64_t byte = VELATURA_SHM_LOCKS + 1 + k, at = c->slot_offset + k * c->slot_bytes;
        uint32_t nobody = 0;
        void *mapped =
            mmap(NULL, (size_t)c->slot_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)at);
        if (mapped == MAP_FAILED) {
            velatura_i_say(c, "%s: cannot map its memory: %s", c->name, strerror(errno));
            return 0;
        }
        c->slot = (velatura_shm_slot *)mapped;
        /* Free by its state before its lock is touched: a lock that comes and goes would look like a client
           to the server, and after a client that died the server has to sweep up first. */
        if (velatura_i_get(&c->slot->state) == 0 &&
            velatura_i_lock(fd, VELATURA_I_OFD_SETLK, F_WRLCK, byte, NULL) == 0) {
            if (__atomic_compare_exchange_n(&c->slot->state, &nobody, 1, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST)) {
                c->areas = (unsigned char *)mapped + VELATURA_SHM_PAGE;
                c->slot_index = k;
                c->slot_offset = at;
                c->generation = velatura_i_get(&c->slot->generation);
                c->next = c->done = c->taken = velatura_i_get(&c->slot->completed);
                c->errors = velatura_i_get(&c->slot->error_count);
                c->fresh = 1;
                velatura_i_put(&c->slot->client_pid, (uint32_t)getpid());
                velatura_i_put(&c->slot->client_version, VELATURA_VERSION);
                velatura_i_put(&c->slot->submitted, (uint32_t)c->next);
                return 1;
            }
            velatura_i_lock(fd, VELATURA_I_OFD_SETLK, F_UNLCK, byte, NULL);
        }
        munmap(mapped, (size_t)c->slot_bytes);
    }
    velatura_i_ring(header);
    velatura_i_say(c, "%s: all %u places of the server are taken", c->name, (unsigned)count);
    return 0;
}

/* Everything but the slot, of a file that is open. 1, or 0 and the reason in error. */
static int velatura_i_enter(velatura_client *c, int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        velatura_i_say(c, "%s: %s is not a file of this user's alone", c->name, c->path);
        return 0;
    }
    if (st.st_size < (off_t)(2 * VELATURA_SHM_PAGE)) {
        velatura_i_say(c, "%s: %s is no memory of velatura's", c->name, c->path);
        return 0;
    }
    void *page = mmap(NULL, VELATURA_SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        velatura_i_say(c, "%s: cannot map its memory: %s", c->name, strerror(errno));
        return 0;
    }
    const int count = velatura_i_read_header(c, (velatura_shm_header *)page, (uint64_t)st.st_size);
    int good = count > 0;
    if (good && !velatura_i_lives(fd)) {
        velatura_i_unlink(c, fd);
        velatura_i_say(c, "%s: the server has ended; start it again", c->name);
        good = 0;
    }
    if (good && velatura_i_take_slot(c, fd, (velatura_shm_header *)page, (uint32_t)count)) {
        c->header = (velatura_shm_header *)page;
        return 1;
    }
    munmap(page, VELATURA_SHM_PAGE);
    return 0;
}

static void velatura_i_attach(velatura_client *c) {
    /* O_NONBLOCK: whatever else is called so, such as a FIFO, must not hold the game up. */
    const int fd = open(c->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT) {
        velatura_i_say(c, "%s: no server of this name runs (velatura serve --shm %s)", c->name, c->name);
        return;
    }
    if (fd < 0) {
        velatura_i_say(c, "%s: cannot open %s: %s", c->name, c->path, strerror(errno));
        return;
    }
    if (!velatura_i_enter(c, fd)) {
        close(fd);
        return;
    }
    c->fd = fd;
    c->error[0] = 0;
    c->check_ns = velatura_i_now() + VELATURA_I_CHECK_NS;
    memset(c->places, 0, sizeof c->places);
    velatura_i_text(c->models, sizeof c->models, c->header->title, sizeof c->header->title);
    velatura_i_ring(c->header);
}

/* Sees to it that there is a server, if it is time to look for one and nothing of the last one is shown. */
static int velatura_i_ready(velatura_client *c) {
    if (c->fd >= 0 && !c->lost) return 1;
    const uint64_t now = velatura_i_now();
    if (now < c->retry_ns || (c->lost && c->later <= VELATURA_I_KEPT)) return 0;
    velatura_i_detach(c);
    velatura_i_attach(c);
    c->retry_ns = now + (uint64_t)c->options.retry_us * 1000u;
    return c->fd >= 0;
}

/* Reads how far the server is; asks whether it lives if `look`, or from time to time. 0 if it is of no use
   any more. */
static int velatura_i_refresh(velatura_client *c, int look) {
    if (c->lost) return 0;
    const uint32_t more = velatura_i_get(&c->slot->completed) - (uint32_t)c->done;
    const uint64_t now = velatura_i_now();
    if (more > (uint32_t)(c->next - c->done)) {
        velatura_i_lose(c, "the server counts frames that were never sent");
        return 0;
    }
    c->done += more;
    /* Its lock alone says whether the server lives; its state is a hint to ask. */
    if (look || now >= c->check_ns || velatura_i_get(&c->header->state) != 2) {
        c->check_ns = now + VELATURA_I_CHECK_NS;
        if (!velatura_i_lives(c->fd)) {
            velatura_i_lose(c, "the server has ended");
            return 0;
        }
    }
    if (velatura_i_get(&c->slot->state) != 1 || velatura_i_get(&c->slot->generation) != c->generation) {
        velatura_i_lose(c, "the server took this client's place back");
        return 0;
    }
    return 1;
}

static unsigned char *velatura_i_area(const velatura_client *c, uint32_t r, int area) {
    return c->areas + r * c->areas_bytes + c->area_at[area];
}

/* A file in /dev/shm is sparse, and a touch of a hole that the system has no memory for ends the program
   with SIGBUS. Asking for the memory first, once, gives an error instead: VELATURA_REFUSED. VELATURA_BUSY if
   it is not all there by a certain moment; the next call goes on. */
static velatura_status velatura_i_commit(velatura_client *c, uint32_t r, int area, uint64_t bytes,
                                         uint64_t until) {
    velatura_i_place *place = &c->places[r];
    if (bytes <= place->committed[area]) return VELATURA_OK;
    const uint64_t at = c->slot_offset + VELATURA_SHM_PAGE + r * c->areas_bytes + c->area_at[area];
    uint64_t have = place->committed[area];
    int tries = 0;
    while (have < bytes) {
        const uint64_t piece = bytes - have < VELATURA_I_PIECE ? bytes - have : VELATURA_I_PIECE;
        /* By its number: posix_fallocate() would write zeros where a file system does not know it. */
        if (syscall(SYS_fallocate, c->fd, 0, (long)(at + have), (long)piece) != 0) {
            if (errno == EINTR && ++tries < VELATURA_I_TRIES) continue;
            if (errno == ENOSPC)
                velatura_i_say(c, "%s: /dev/shm is full: a frame needs %llu bytes more", c->name,
                               (unsigned long long)(bytes - have));
            else if (errno != EOPNOTSUPP && errno != ENOSYS)
                velatura_i_say(c, "%s: no memory in /dev/shm for a frame: %s", c->name, strerror(errno));
            else
                break; /* it cannot be asked for here: the touch will have it */
            return VELATURA_REFUSED;
        }
        /* All page faults at once take a fraction of the time; an older kernel has them one by one. */
        madvise(velatura_i_area(c, r, area) + have, (size_t)piece, VELATURA_I_POPULATE_WRITE);
        have += piece;
        place->committed[area] = have;
        if (have < bytes && velatura_i_now() >= until) {
            velatura_i_say(c, "%s: the system is slow to give memory for a frame", c->name);
            return VELATURA_BUSY;
        }
    }
    place->committed[area] = bytes;
    return VELATURA_OK;
}

static uint32_t velatura_i_or(uint32_t value, uint32_t otherwise) {
    return value ? value : otherwise;
}

/* Whether there is colour to be read: enough to pass the frame through. */
static int velatura_i_readable(velatura_client *c, const velatura_frame *f) {
    if (f && f->pixels && f->width && f->height && f->width <= VELATURA_SHM_SIDE_MOST &&
        f->height <= VELATURA_SHM_SIDE_MOST && (!f->stride || f->stride >= f->width * 4u))
        return 1;
    velatura_i_say(c, "%s: the frame has no pixels, or a wrong size or stride", c->name);
    return 0;
}

static void velatura_i_sizes(velatura_frame *f) {
    f->motion_width = velatura_i_or(f->motion_width, f->width);
    f->motion_height = velatura_i_or(f->motion_height, f->height);
    f->depth_width = velatura_i_or(f->depth_width, f->width);
    f->depth_height = velatura_i_or(f->depth_height, f->height);
    f->reactive_width = velatura_i_or(f->reactive_width, f->width);
    f->reactive_height = velatura_i_or(f->reactive_height, f->height);
}

/* A place in the ring for a frame whose sizes are filled in, with memory behind it. */
static velatura_status velatura_i_room(velatura_client *c, const velatura_frame *f, uint32_t *entry) {
    const struct {
        int area;
        uint32_t wanted, width, height, bytes;
        const char *name;
    } all[4] = {
        {VELATURA_I_COLOUR, 1, f->width, f->height, 4, "a frame"},
        {VELATURA_I_MOTION, f->flags & VELATURA_HAS_MOTION, f->motion_width, f->motion_height, 8, "motion"},
        {VELATURA_I_DEPTH, f->flags & VELATURA_HAS_DEPTH, f->depth_width, f->depth_height, 4, "depth"},
        {VELATURA_I_REACTIVE, f->flags & VELATURA_HAS_REACTIVE, f->reactive_width, f->reactive_height, 1,
         "a reactive mask"}};
    for (int i = 0; i < 4; i++)
        if (all[i].wanted && (!all[i].width || !all[i].height || all[i].width > c->max_width ||
                              all[i].height > c->max_height)) {
            velatura_i_say(c, "%s: %s of %ux%u: the server takes 1x1 to %ux%u", c->name, all[i].name,
                           (unsigned)all[i].width, (unsigned)all[i].height, (unsigned)c->max_width,
                           (unsigned)c->max_height);
            return VELATURA_REFUSED;
        }
    if (f->format > VELATURA_BGRA8) {
        velatura_i_say(c, "%s: pixel format %u is unknown", c->name, (unsigned)f->format);
        return VELATURA_REFUSED;
    }
    /* Where the 32-bit counter wraps, places in the ring jump: it runs empty there, once in 2^32 frames. */
    if (c->next - c->done >= c->ring || ((uint32_t)c->next == 0 && c->next != c->done)) {
        velatura_i_say(c, "%s: %u frames are on their way already", c->name,
                       (unsigned)(c->next - c->done));
        return VELATURA_BUSY;
    }
    *entry = (uint32_t)c->next % c->ring;
    /* The rest of the time is for copying and for the server. */
    const uint64_t until =
        velatura_i_now() + velatura_i_or(f->deadline_us, c->options.deadline_us) * (uint64_t)500;
    for (int i = 0; i < 4; i++) {
        const uint64_t bytes = (uint64_t)all[i].width * all[i].height * all[i].bytes;
        const velatura_status status =
            all[i].wanted ? velatura_i_commit(c, *entry, all[i].area, bytes, until) : VELATURA_OK;
        if (status != VELATURA_OK) return status;
    }
    /* The result that nobody collected makes room. */
    if ((uint32_t)c->next == 0) c->taken = c->next;
    if (c->taken + c->ring <= c->next) c->taken = c->next + 1 - c->ring;
    return VELATURA_OK;
}

static void velatura_i_rows(void *to, size_t to_stride, const void *from, size_t from_stride, size_t bytes,
                            size_t rows) {
    if (to == from && to_stride == from_stride) return;
    if (to_stride == bytes && from_stride == bytes) {
        memmove(to, from, bytes * rows);
        return;
    }
    for (size_t y = 0; y < rows; y++)
        memmove((unsigned char *)to + y * to_stride, (const unsigned char *)from + y * from_stride, bytes);
}

/* Where pixel `i` of `count` lies in a row of `length`, in 1/256 pixels, pixels' centres over each other. */
static uint32_t velatura_i_centre(uint32_t i, uint32_t count, uint32_t length) {
    const uint64_t at = (2u * (uint64_t)i + 1u) * length * 128u / count;
    return at > 128u ? (uint32_t)(at - 128u) : 0;
}

/* Bilinear. */
static void velatura_i_scale(unsigned char *to, size_t to_stride, uint32_t width, uint32_t height,
                             const velatura_view *from) {
    for (uint32_t y = 0; y < height; y++) {
        const uint32_t v = velatura_i_centre(y, height, from->height), fy = v & 255u, y0 = v >> 8;
        const unsigned char *upper = (const unsigned char *)from->pixels + (size_t)y0 * from->stride;
        const unsigned char *lower = y0 + 1 < from->height ? upper + from->stride : upper;
        for (uint32_t x = 0; x < width; x++) {
            const uint32_t u = velatura_i_centre(x, width, from->width), fx = u & 255u, x0 = u >> 8;
            const size_t left = (size_t)x0 * 4u, right = x0 + 1 < from->width ? left + 4u : left;
            unsigned char *pixel = to + y * to_stride + (size_t)x * 4u;
            for (size_t i = 0; i < 4; i++) {
                const uint32_t top = upper[left + i] * (256u - fx) + upper[right + i] * fx;
                const uint32_t low = lower[left + i] * (256u - fx) + lower[right + i] * fx;
                pixel[i] = (unsigned char)((top * (256u - fy) + low * fy + 32768u) >> 16);
            }
        }
    }
}

/* Copies a view out. 1 if the picture had room. */
static int velatura_i_show(velatura_client *c, const velatura_view *view, velatura_picture *picture) {
    const uint32_t w = picture ? velatura_i_or(picture->width, view->width) : view->width;
    const uint32_t h = picture ? velatura_i_or(picture->height, view->height) : view->height;
    const uint64_t row = (uint64_t)w * 4u, stride = picture && picture->stride ? picture->stride : row;
    if (!picture || !picture->pixels || w > VELATURA_SHM_SIDE_MOST * VELATURA_SHM_SCALE_MOST ||
        h > VELATURA_SHM_SIDE_MOST * VELATURA_SHM_SCALE_MOST || stride < row ||
        stride * (h - 1u) + row > picture->bytes) {
        velatura_i_say(c, "%s: no room for a picture of %ux%u, or a stride below its width", c->name,
                       (unsigned)w, (unsigned)h);
        return 0;
    }
    picture->width = w;
    picture->height = h;
    if (w == view->width && h == view->height)
        velatura_i_rows(picture->pixels, (size_t)stride, view->pixels, view->stride, (size_t)row, h);
    else
        velatura_i_scale((unsigned char *)picture->pixels, (size_t)stride, w, h, view);
    return 1;
}

static velatura_status velatura_i_pass(const velatura_frame *f, velatura_view *view,
                                       velatura_status status) {
    memset(view, 0, sizeof *view);
    view->pixels = f->pixels;
    view->width = f->width;
    view->height = f->height;
    view->stride = velatura_i_or(f->stride, f->width * 4u);
    view->format = velatura_i_or(f->format, VELATURA_RGBA8);
    return status;
}

/* What the server answered for a frame, every number of it checked. */
static velatura_status velatura_i_answer(velatura_client *c, uint64_t sequence, velatura_view *view) {
    const uint32_t r = (uint32_t)sequence % c->ring;
    const velatura_i_place *place = &c->places[r];
    const velatura_shm_entry *e = &c->slot->entries[r];
    view->pixels = velatura_i_area(c, r, VELATURA_I_COLOUR);
    view->width = place->width;
    view->height = place->height;
    view->stride = place->stride;
    view->format = place->format;
    view->sequence = sequence;
    if (sequence >= c->done) return VELATURA_GONE; /* the server ended over it */
    const uint32_t status = velatura_i_get(&e->status), area = velatura_i_get(&e->out_area);
    const uint32_t w = velatura_i_get(&e->out_width), h = velatura_i_get(&e->out_height);
    const uint32_t stride = velatura_i_get(&e->out_stride);
    const uint64_t sent = velatura_i_get64(&e->submitted_ns), came = velatura_i_get64(&e->completed_ns);
    int fits = velatura_i_get64(&e->result_sequence) == sequence && status >= 1 && status <= 3 && area <= 1;
    if (fits && area == 1)
        fits = w >= 1 && h >= 1 && w <= c->max_width * c->max_scale && h <= c->max_height * c->max_scale &&
               stride >= w * 4u && (uint64_t)stride * h <= c->area_bytes[VELATURA_I_OUTPUT];
    if (!fits) {
        velatura_i_lose(c, "the server's answer contradicts itself");
        return VELATURA_GONE;
    }
    /* The server has had that memory already: to map it takes no time. */
    if (area == 1 &&
        velatura_i_commit(c, r, VELATURA_I_OUTPUT, (uint64_t)stride * h, ~(uint64_t)0) != VELATURA_OK)
        return VELATURA_REFUSED;
    memcpy(&view->work_ms, &e->work_ms, sizeof view->work_ms);
    view->latency_ns = came > sent ? came - sent : 0;
    if (area == 1) {
        view->pixels = velatura_i_area(c, r, VELATURA_I_OUTPUT);
        view->width = w;
        view->height = h;
        view->stride = stride;
    }
    c->in_width = place->width;
    c->in_height = place->height;
    c->out_width = view->width;
    c->out_height = view->height;
    const uint32_t errors = velatura_i_get(&c->slot->error_count);
    if (errors != c->errors || status == 3) {
        char message[96];
        velatura_i_text(message, sizeof message, c->slot->message, sizeof c->slot->message);
        velatura_i_say(c, "%s: the server: %s", c->name, message);
        c->errors = errors;
    }
    return status == 1 ? VELATURA_DONE : status == 2 ? VELATURA_PASSED : VELATURA_REFUSED;
}

/* ---- The functions -------------------------------------------------------------------------------- */

VELATURA_DEF const char *velatura_status_text(velatura_status status) {
    static const char *const texts[] = {"ok",   "done", "passed", "refused",
                                        "gone", "busy", "late",   "empty"};
    return (unsigned)status < sizeof texts / sizeof texts[0] ? texts[status] : "unknown";
}

VELATURA_DEF int velatura_name_is_valid(const char *name) {
    size_t n = 0;
    if (!name) return 0;
    for (; n <= VELATURA_NAME_MOST && name[n]; n++) {
        const char letter = name[n];
        /* By hand: isalnum() takes more letters in some locales. */
        const int word = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                         (letter >= '0' && letter <= '9') || letter == '_';
        if (!word && (n == 0 || (letter != '.' && letter != '-'))) return 0;
    }
    return n >= 1 && n <= VELATURA_NAME_MOST;
}

VELATURA_DEF velatura_client *velatura_open(const char *name, const velatura_options *options) {
    if (!velatura_name_is_valid(name)) return NULL;
    velatura_client *c = (velatura_client *)calloc(1, sizeof *c);
    if (!c) return NULL;
    memcpy(c->path, VELATURA_I_FOLDER, sizeof VELATURA_I_FOLDER);
    c->name = c->path + sizeof VELATURA_I_FOLDER - 1;
    strcat(c->path, name);
    if (options) c->options = *options;
    c->options.deadline_us = velatura_i_or(c->options.deadline_us, 100000u);
    c->options.retry_us = velatura_i_or(c->options.retry_us, 500000u);
    c->fd = -1;
    velatura_i_ready(c);
    return c;
}

VELATURA_DEF void velatura_close(velatura_client *c) {
    if (!c) return;
    if (c->fd >= 0) velatura_i_refresh(c, 1); /* a dead server's name goes now, too */
    velatura_i_detach(c);
    free(c);
}

VELATURA_DEF velatura_status velatura_wait(velatura_client *c, uint32_t timeout_us) {
    const uint64_t end = velatura_i_now() + (uint64_t)timeout_us * 1000u;
    const struct timespec nap = {0, 10000000};
    for (;;) {
        if (velatura_connected(c)) return VELATURA_OK;
        c->retry_ns = 0;
        c->later = VELATURA_I_KEPT + 1;
        if (velatura_i_ready(c)) return VELATURA_OK;
        if (velatura_i_now() >= end) return VELATURA_GONE;
        nanosleep(&nap, NULL);
    }
}

VELATURA_DEF int velatura_connected(velatura_client *c) {
    return c->fd >= 0 && velatura_i_refresh(c, 1);
}

VELATURA_DEF const char *velatura_error(const velatura_client *c) {
    return c->error;
}

VELATURA_DEF const char *velatura_models(const velatura_client *c) {
    return c->models;
}

VELATURA_DEF void velatura_limits(const velatura_client *c, uint32_t *width, uint32_t *height,
                                  uint32_t *scale) {
    const int there = c->fd >= 0 && !c->lost;
    *width = there ? c->max_width : 1;
    *height = there ? c->max_height : 1;
    *scale = there ? c->max_scale : 1;
}

VELATURA_DEF void velatura_output_size(const velatura_client *c, uint32_t width, uint32_t height,
                                       uint32_t *out_width, uint32_t *out_height) {
    const int known = c->in_width == width && c->in_height == height;
    *out_width = known ? c->out_width : width;
    *out_height = known ? c->out_height : height;
}

VELATURA_DEF velatura_status velatura_begin(velatura_client *c, velatura_frame *frame,
                                            velatura_canvas *canvas) {
    uint32_t r = 0;
    velatura_frame f = *frame;
    memset(canvas, 0, sizeof *canvas);
    /* Those of an earlier frame may point into memory that is gone. */
    frame->pixels = NULL;
    frame->motion = frame->depth = NULL;
    frame->reactive = NULL;
    c->begun = 0;
    c->counted = 1;
    c->later++;
    if (!velatura_i_ready(c) || !velatura_i_refresh(c, 0)) return VELATURA_GONE;
    velatura_i_sizes(&f);
    const velatura_status status = velatura_i_room(c, &f, &r);
    if (status != VELATURA_OK) return status;
    canvas->pixels = velatura_i_area(c, r, VELATURA_I_COLOUR);
    if (f.flags & VELATURA_HAS_MOTION)
        canvas->motion = (float *)(void *)velatura_i_area(c, r, VELATURA_I_MOTION);
    if (f.flags & VELATURA_HAS_DEPTH)
        canvas->depth = (float *)(void *)velatura_i_area(c, r, VELATURA_I_DEPTH);
    if (f.flags & VELATURA_HAS_REACTIVE) canvas->reactive = velatura_i_area(c, r, VELATURA_I_REACTIVE);
    frame->stride = 0;
    frame->pixels = canvas->pixels;
    frame->motion = canvas->motion;
    frame->depth = canvas->depth;
    frame->reactive = canvas->reactive;
    c->begun = 1;
    return VELATURA_OK;
}

static void velatura_i_copy(void *to, const void *from, uint32_t width, uint32_t height, size_t bytes) {
    if (from && from != to) memcpy(to, from, (size_t)width * height * bytes);
}

VELATURA_DEF velatura_status velatura_submit(velatura_client *c, const velatura_frame *frame) {
    uint32_t r = 0;
    if (!velatura_i_readable(c, frame)) return VELATURA_REFUSED;
    /* A frame drawn in place must not lose its mapping to a new server's here: it may still be shown. */
    if (!c->counted) c->later++;
    c->counted = 0;
    const int there = c->begun ? !c->lost : velatura_i_ready(c);
    c->begun = 0;
    if (!there || !velatura_i_refresh(c, 0)) return VELATURA_GONE;
    velatura_frame f = *frame;
    velatura_i_sizes(&f);
    f.flags &= ~(VELATURA_HAS_MOTION | VELATURA_HAS_DEPTH | VELATURA_HAS_REACTIVE);
    f.flags |= (f.motion ? VELATURA_HAS_MOTION : 0u) | (f.depth ? VELATURA_HAS_DEPTH : 0u) |
               (f.reactive ? VELATURA_HAS_REACTIVE : 0u);
    const velatura_status status = velatura_i_room(c, &f, &r);
    if (status != VELATURA_OK) return status;
    const uint32_t row = f.width * 4u;
    velatura_i_rows(velatura_i_area(c, r, VELATURA_I_COLOUR), row, f.pixels, velatura_i_or(f.stride, row),
                    row, f.height);
    velatura_i_copy(velatura_i_area(c, r, VELATURA_I_MOTION), f.motion, f.motion_width, f.motion_height, 8);
    velatura_i_copy(velatura_i_area(c, r, VELATURA_I_DEPTH), f.depth, f.depth_width, f.depth_height, 4);
    velatura_i_copy(velatura_i_area(c, r, VELATURA_I_REACTIVE), f.reactive, f.reactive_width,
                    f.reactive_height, 1);
    velatura_i_place *place = &c->places[r];
    place->width = f.width;
    place->height = f.height;
    place->stride = row;
    place->format = velatura_i_or(f.format, VELATURA_RGBA8);
    velatura_shm_entry e;
    memset(&e, 0, sizeof e);
    e.sequence = c->next;
    e.width = f.width;
    e.height = f.height;
    e.stride = row;
    e.format = place->format;
    e.flags = f.flags | (c->fresh ? VELATURA_RESET : 0u);
    e.motion_width = f.motion ? f.motion_width : 0;
    e.motion_height = f.motion ? f.motion_height : 0;
    e.depth_width = f.depth ? f.depth_width : 0;
    e.depth_height = f.depth ? f.depth_height : 0;
    e.reactive_width = f.reactive ? f.reactive_width : 0;
    e.reactive_height = f.reactive ? f.reactive_height : 0;
    e.jitter_x = f.jitter_x;
    e.jitter_y = f.jitter_y;
    e.motion_scale_x = f.motion_scale_x < 0 || f.motion_scale_x > 0 ? f.motion_scale_x : 1.0f;
    e.motion_scale_y = f.motion_scale_y < 0 || f.motion_scale_y > 0 ? f.motion_scale_y : 1.0f;
    e.depth_near = f.depth_near > 0 ? f.depth_near : 0.1f;
    e.depth_far = f.depth_far > 0 ? f.depth_far : 1000.0f;
    e.deadline_us = velatura_i_or(f.deadline_us, c->options.deadline_us);
    e.submitted_ns = velatura_i_now();
    memcpy(&c->slot->entries[r], &e, sizeof e);
    c->fresh = 0;
    c->next++;
    velatura_i_put(&c->slot->submitted, (uint32_t)c->next);
    velatura_i_wake(&c->slot->submitted);
    return VELATURA_OK;
}

VELATURA_DEF velatura_status velatura_result(velatura_client *c, velatura_view *view, uint32_t timeout_us) {
    memset(view, 0, sizeof *view);
    if (c->fd < 0 || c->taken == c->next) return VELATURA_EMPTY;
    const uint64_t sequence = c->taken, end = velatura_i_now() + (uint64_t)timeout_us * 1000u;
    while (velatura_i_refresh(c, 0) && sequence >= c->done) {
        const uint64_t now = velatura_i_now();
        if (now >= end) {
            if (!timeout_us || velatura_i_refresh(c, 1)) return VELATURA_LATE;
            break;
        }
        const uint64_t left = end - now < VELATURA_I_SLICE_NS ? end - now : VELATURA_I_SLICE_NS;
        const struct timespec nap = {0, (long)left};
        syscall(SYS_futex, &c->slot->completed, VELATURA_I_FUTEX_WAIT, (uint32_t)c->done, &nap, NULL, 0);
        /* Nothing came within a slice, or a server that stops woke its clients. */
        if (velatura_i_get(&c->slot->completed) == (uint32_t)c->done) velatura_i_refresh(c, 1);
    }
    c->taken = sequence + 1;
    return velatura_i_answer(c, sequence, view);
}

VELATURA_DEF velatura_status velatura_collect(velatura_client *c, velatura_picture *picture,
                                              uint32_t timeout_us) {
    velatura_view view;
    const velatura_status status = velatura_result(c, &view, timeout_us);
    if (status == VELATURA_LATE || status == VELATURA_EMPTY) return status;
    return velatura_i_show(c, &view, picture) ? status : VELATURA_REFUSED;
}

VELATURA_DEF velatura_status velatura_process_view(velatura_client *c, const velatura_frame *frame,
                                                   velatura_view *view) {
    memset(view, 0, sizeof *view);
    if (!velatura_i_readable(c, frame)) return VELATURA_REFUSED;
    const uint64_t deadline = velatura_i_or(frame->deadline_us, c->options.deadline_us);
    const uint64_t start = velatura_i_now();
    velatura_status status = velatura_submit(c, frame);
    if (status != VELATURA_OK)
        return velatura_i_pass(frame, view, status == VELATURA_BUSY ? VELATURA_PASSED : status);
    const uint64_t sequence = c->next - 1, spent = (velatura_i_now() - start) / 1000u;
    c->taken = sequence;
    status = velatura_result(c, view, spent < deadline ? (uint32_t)(deadline - spent) : 0);
    if (status == VELATURA_LATE) {
        c->taken = sequence + 1;
        velatura_i_say(c, "%s: a frame was not ready after %llu us", c->name, (unsigned long long)deadline);
        return velatura_i_pass(frame, view, VELATURA_PASSED);
    }
    return status == VELATURA_GONE ? velatura_i_pass(frame, view, status) : status;
}

VELATURA_DEF velatura_status velatura_process(velatura_client *c, const velatura_frame *frame,
                                              velatura_picture *picture) {
    velatura_view view;
    const velatura_status status = velatura_process_view(c, frame, &view);
    if (!view.pixels || velatura_i_show(c, &view, picture)) return status;
    velatura_i_pass(frame, &view, status); /* smaller, perhaps: a picture in any case */
    velatura_i_show(c, &view, picture);
    return VELATURA_REFUSED;
}

#ifdef __cplusplus
}
#endif
#endif /* VELATURA_IMPLEMENTATION */
