/* The little of GDNative's binary interface (core API 1.0) that velatura_godot.c needs, for machines
   without Godot's own headers. The functions' places are those of Godot 3.1 to 3.3 (published in its
   gdnative_api.json; Debian's godot3 is 3.2). Later ones number them otherwise from 512 on: with the
   headers of your Godot at hand, include <gdnative_api_struct.gen.h> instead. 64-bit. */
#ifndef GDNATIVE_ABI_H
#define GDNATIVE_ABI_H

#include <stdbool.h>
#include <stdint.h>

typedef struct { uint8_t hidden[24]; } godot_variant;
typedef struct { uint8_t hidden[8]; } godot_array;
typedef struct { uint8_t hidden[8]; } godot_pool_byte_array;
typedef struct godot_access godot_access; /* a lock on the bytes of such an array */

typedef struct {
    unsigned type, major, minor;
    const void *next;
    unsigned num_extensions;
    const void *extensions;
    void (*functions[744])(void);
} godot_api;

typedef struct {
    bool in_editor;
    uint64_t api_hashes[3];
    void (*report_version_mismatch)(void), (*report_loading_error)(void);
    void *library;
    const godot_api *api;
    const void *path;
} godot_gdnative_init_options;

static const godot_api *api; /* Godot's own table, one for the whole process; set at loading */

/* A function of the interface: its place in the list, and its type. */
#define GODOT_CALL(place, type) ((type)api->functions[place])
#define godot_pool_byte_array_new GODOT_CALL(155, void (*)(godot_pool_byte_array *))
#define godot_pool_byte_array_resize GODOT_CALL(164, void (*)(godot_pool_byte_array *, int))
#define godot_pool_byte_array_read GODOT_CALL(165, godot_access *(*)(const godot_pool_byte_array *))
#define godot_pool_byte_array_write GODOT_CALL(166, godot_access *(*)(godot_pool_byte_array *))
#define godot_pool_byte_array_size GODOT_CALL(169, int (*)(const godot_pool_byte_array *))
#define godot_pool_byte_array_destroy GODOT_CALL(170, void (*)(godot_pool_byte_array *))
#define godot_read_access_ptr GODOT_CALL(268, const uint8_t *(*)(const godot_access *))
#define godot_read_access_destroy GODOT_CALL(270, void (*)(godot_access *))
#define godot_write_access_ptr GODOT_CALL(296, uint8_t *(*)(const godot_access *))
#define godot_write_access_destroy GODOT_CALL(298, void (*)(godot_access *))
#define godot_array_get GODOT_CALL(333, godot_variant (*)(const godot_array *, int))
#define godot_variant_new_int GODOT_CALL(512, void (*)(godot_variant *, int64_t))
#define godot_variant_new_bytes \
    GODOT_CALL(530, void (*)(godot_variant *, const godot_pool_byte_array *))
#define godot_variant_as_int GODOT_CALL(539, int64_t (*)(const godot_variant *))
#define godot_variant_as_bytes GODOT_CALL(557, godot_pool_byte_array (*)(const godot_variant *))
#define godot_variant_destroy GODOT_CALL(570, void (*)(godot_variant *))

/* Arguments of a procedure, and its result. */
static inline int64_t godot_whole(const godot_array *arguments, int index) {
    godot_variant value = godot_array_get(arguments, index);
    const int64_t found = godot_variant_as_int(&value);
    godot_variant_destroy(&value);
    return found;
}

static inline godot_pool_byte_array godot_bytes(const godot_array *arguments, int index) {
    godot_variant value = godot_array_get(arguments, index);
    const godot_pool_byte_array found = godot_variant_as_bytes(&value);
    godot_variant_destroy(&value);
    return found;
}

static inline godot_variant godot_from_whole(int64_t value) {
    godot_variant result;
    godot_variant_new_int(&result, value);
    return result;
}

static inline godot_variant godot_from_bytes(godot_pool_byte_array *taken) {
    godot_variant result;
    godot_variant_new_bytes(&result, taken);
    godot_pool_byte_array_destroy(taken);
    return result;
}

#endif
