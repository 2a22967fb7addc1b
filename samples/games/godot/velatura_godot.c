/* velatura.h for Godot 3: a GDNative library, whose procedures GDNative.call_native() calls.

   velatura_start(name) -> client, or 0; the name as bytes: "game".to_utf8()
   velatura_show(client, pixels, width, height) -> bytes of the picture, of the same size
   velatura_status_of(client) -> 1 done, 2 passed, 3 refused, 4 no server
   velatura_stop(client): says what was last wrong, if anything was */
#define VELATURA_IMPLEMENTATION
#include <velatura.h>

#include "gdnative_abi.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct { /* a client; its address is GDScript's number for it */
    velatura_client *client;
    velatura_status status;
} node;

EXPORT void godot_gdnative_init(const godot_gdnative_init_options *options) { api = options->api; }

static node *self(const godot_array *arguments) { return (node *)(intptr_t)godot_whole(arguments, 0); }

EXPORT godot_variant velatura_start(const godot_array *arguments) {
    char name[VELATURA_NAME_MOST + 2] = {0}; /* one more than allowed: too long is refused, not cut */
    godot_pool_byte_array given = godot_bytes(arguments, 0);
    const size_t length = (size_t)godot_pool_byte_array_size(&given);
    godot_access *reading = godot_pool_byte_array_read(&given);
    memcpy(name, godot_read_access_ptr(reading), length < sizeof name ? length : sizeof name - 1);
    godot_read_access_destroy(reading);
    godot_pool_byte_array_destroy(&given);
    node *made = calloc(1, sizeof *made);
    if (made && (made->client = velatura_open(name, NULL))) return godot_from_whole((intptr_t)made);
    free(made);
    return godot_from_whole(0);
}

EXPORT godot_variant velatura_show(const godot_array *arguments) {
    godot_pool_byte_array in = godot_bytes(arguments, 1), out;
    velatura_frame frame = {0};
    velatura_picture picture = {0};
    frame.width = picture.width = (uint32_t)godot_whole(arguments, 2);
    frame.height = picture.height = (uint32_t)godot_whole(arguments, 3);
    frame.flags = VELATURA_FLIPPED; /* a viewport's texture has its lowest row first */
    frame.deadline_us = 2000000;    /* for the picture's sake; a game sets what it can spare: 8000 */
    picture.bytes = (size_t)frame.width * frame.height * 4;
    godot_pool_byte_array_new(&out);
    godot_pool_byte_array_resize(&out, (int)picture.bytes);
    godot_access *reading = godot_pool_byte_array_read(&in);
    godot_access *writing = godot_pool_byte_array_write(&out);
    const int whole = (size_t)godot_pool_byte_array_size(&in) >= picture.bytes;
    frame.pixels = whole ? godot_read_access_ptr(reading) : NULL;
    picture.pixels = godot_write_access_ptr(writing);
    self(arguments)->status = velatura_process(self(arguments)->client, &frame, &picture);
    godot_read_access_destroy(reading);
    godot_write_access_destroy(writing);
    godot_pool_byte_array_destroy(&in);
    return godot_from_bytes(&out);
}

EXPORT godot_variant velatura_status_of(const godot_array *arguments) {
    return godot_from_whole(self(arguments)->status);
}

EXPORT godot_variant velatura_stop(const godot_array *arguments) {
    fprintf(stderr, "%s", velatura_error(self(arguments)->client));
    velatura_close(self(arguments)->client);
    free(self(arguments));
    return godot_from_whole(0);
}
