/* A small world, drawn by the CPU, whose frames go through velatura before they are shown.

   game NAME FRAMES WIDTH HEIGHT BEFORE.ppm AFTER.ppm: plays until so many frames have come back from
   `velatura serve --shm NAME`; writes the last one as it was drawn and as it came back. */
#define VELATURA_IMPLEMENTATION
#include "velatura.h"

#include <math.h>

typedef struct { float x, y, z; } vec;
typedef struct { vec at, right, up, forward; } camera;
typedef struct { float away; vec colour, before; } hit; /* before: where it was in the frame before */
enum { PLANETS = 5 };
static const vec SUN = {0.48f, 0.62f, -0.62f};

static vec add(vec a, vec b, float k) { return (vec){a.x + b.x * k, a.y + b.y * k, a.z + b.z * k}; }
static vec mix(vec a, vec b, float k) { return add(add(a, a, -k), b, k); }
static float dot(vec a, vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static vec unit(vec a) { return add((vec){0, 0, 0}, a, 1.0f / sqrtf(dot(a, a))); }
static vec cross(vec a, vec b) {
    return (vec){a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
static vec turned(vec a, float by) { /* around the upright axis */
    return (vec){a.x * cosf(by) + a.z * sinf(by), a.y, a.z * cosf(by) - a.x * sinf(by)};
}
static camera look(float t) {
    camera c = {.at = {9.0f * sinf(0.3f * t), 2.6f + 0.8f * sinf(0.5f * t), -9.0f * cosf(0.3f * t)}};
    c.forward = unit(add((vec){0, 1.1f, 0}, c.at, -1.0f));
    c.right = unit(cross((vec){0, 1, 0}, c.forward)), c.up = cross(c.forward, c.right);
    return c;
}

static float radius(int i) { return 0.62f + 0.22f * (float)((i * 3) % 4); }
static float spin(int i, float t) { return t * (0.5f + 0.2f * (float)i); }
static vec centre(int i, float t) {
    const float a = 0.4f * t + 1.2566f * (float)i;
    return (vec){3.4f * cosf(a), radius(i) + 0.25f + 0.25f * sinf(t + (float)i), 3.4f * sinf(a)};
}
static float reach(vec from, vec along, int i, float t) { /* how far planet i is along the ray, or 0 */
    const vec off = add(from, centre(i, t), -1.0f);
    const float b = dot(off, along), d = b * b - dot(off, off) + radius(i) * radius(i);
    return d > 0 ? fmaxf(-b - sqrtf(d), 0) : 0;
}
static vec paint(int i, vec p) { /* bands or continents, in two colours of each planet's own */
    const float wave = i % 2 ? sinf(9.0f * p.y + 1.5f * sinf(4.0f * p.x))
                             : sinf(4.1f * p.x + 2.0f * sinf(3.0f * p.z)) + sinf(5.3f * p.y + p.z);
    const float ink = 2.1f * (float)i + 1.7f / (1.0f + expf(-12.0f * wave));
    return (vec){0.5f + 0.4f * cosf(ink), 0.5f + 0.35f * cosf(ink + 1), 0.5f + 0.4f * cosf(ink + 2.3f)};
}

static hit trace(vec from, vec along, float t, float step) {
    const vec sky = mix((vec){0.85f, 0.72f, 0.6f}, (vec){0.2f, 0.4f, 0.75f}, sqrtf(fmaxf(along.y, 0)));
    hit found = {along.y < -1e-4f ? -from.y / along.y : 1e4f, sky, add(from, along, 1e4f)};
    int planet = -1, shaded = 0;
    for (int i = 0; i < PLANETS; i++) {
        const float away = reach(from, along, i, t);
        if (away > 0 && away < found.away) found.away = away, planet = i;
    }
    if (found.away >= 1e4f) return found;
    const vec at = found.before = add(from, along, found.away);
    vec normal = {0, 1, 0};
    if (planet >= 0) {
        const vec off = add(at, centre(planet, t), -1.0f), own = turned(off, -spin(planet, t));
        normal = unit(off), found.colour = paint(planet, own);
        found.before = add(turned(own, spin(planet, t - step)), centre(planet, t - step), 1.0f);
    } else {
        const int tile = ((int)floorf(at.x) + (int)floorf(at.z)) & 1;
        found.colour = tile ? (vec){0.75f, 0.7f, 0.62f} : (vec){0.35f, 0.25f, 0.22f};
    }
    for (int i = 0; i < PLANETS && !shaded; i++)
        shaded = i != planet && reach(add(at, normal, 0.002f), SUN, i, t) > 0;
    const float light = 0.35f + (shaded ? 0 : 0.8f * fmaxf(dot(normal, SUN), 0));
    found.colour = mix((vec){0, 0, 0}, found.colour, light);
    found.colour = mix(found.colour, sky, 1.0f - expf(-powf(found.away / 40.0f, 2.0f)));
    return found;
}

static unsigned char byte(float v) { return (unsigned char)(powf(fminf(fmaxf(v, 0), 1), 0.45f) * 255); }

static void draw(uint8_t *pixels, float *motion, float *depth, int w, int h, float t, float step) {
    static const float of_x[] = {.375f, .875f, .125f, .625f}, of_y[] = {.125f, .375f, .625f, .875f};
    const camera now = look(t), past = look(t - step);
    const float zoom = (float)h * 1.2f, mx = (float)w / 2, my = (float)h / 2;
    for (int i = 0; i < w * h; i++) {
        vec sum = {0, 0, 0};
        for (int s = -1; s < 4; s++) { /* the middle for motion and depth, then four for the colour */
            const float x = (float)(i % w) + (s < 0 ? 0.5f : of_x[s]);
            const float y = (float)(i / w) + (s < 0 ? 0.5f : of_y[s]);
            const vec aside = add(add((vec){0, 0, 0}, now.right, x - mx), now.up, my - y);
            const vec along = unit(add(aside, now.forward, zoom));
            const hit found = trace(now.at, along, t, step);
            if (s >= 0) sum = add(sum, found.colour, 0.25f);
            if (s >= 0) continue;
            const vec off = add(found.before, past.at, -1.0f);
            const float z = fmaxf(dot(off, past.forward), 0.01f);
            motion[2 * i] = mx + zoom * dot(off, past.right) / z - x;
            motion[2 * i + 1] = my - zoom * dot(off, past.up) / z - y;
            depth[i] = found.away * dot(along, now.forward);
        }
        unsigned char *pixel = pixels + 4 * i;
        pixel[0] = byte(sum.x), pixel[1] = byte(sum.y), pixel[2] = byte(sum.z), pixel[3] = 255;
    }
}

static void save(const char *path, const unsigned char *pixels, uint32_t w, uint32_t h) {
    FILE *file = fopen(path, "wb");
    if (!file) exit(1);
    fprintf(file, "P6 %u %u 255\n", (unsigned)w, (unsigned)h);
    for (size_t i = 0; i < (size_t)w * h; i++) fwrite(pixels + 4 * i, 1, 3, file);
    fclose(file);
}

int main(int count, char **words) {
    if (count != 7) return 2;
    const int frames = atoi(words[2]), w = atoi(words[3]), h = atoi(words[4]);
    const size_t pixels = (size_t)w * (size_t)h, room = pixels * 4 * 16; /* for upscalers to 4x */
    velatura_client *client = velatura_open(words[1], NULL);
    unsigned char *colour = malloc(pixels * 4), *shown = malloc(room);
    velatura_frame frame = {.pixels = colour, .width = (uint32_t)w, .height = (uint32_t)h};
    velatura_picture picture = {0};
    float *motion = malloc(pixels * 8), *depth = malloc(pixels * 4);
    if (!client || !colour || !shown || !motion || !depth) return 2;
    int done = 0, passed = 0;
    frame.motion = motion, frame.depth = depth; /* optional, as is the rest of a frame */
    frame.deadline_us = 10000000;    /* for the picture's sake; a game sets what it can spare: 8000 */
    velatura_wait(client, 60000000); /* a game would start at once, and its frames would pass */
    while (done < frames && passed < 300) {
        draw(colour, motion, depth, w, h, (float)(done + passed) / 30.0f, 1.0f / 30.0f);
        picture = (velatura_picture){.pixels = shown, .bytes = room};
        *(velatura_process(client, &frame, &picture) == VELATURA_DONE ? &done : &passed) += 1;
        /* Here a game would draw its text over the picture, and show it. */
    }
    printf("%d frames done, %d passed %s\n", done, passed, velatura_error(client));
    velatura_close(client);
    save(words[5], colour, frame.width, frame.height);
    save(words[6], shown, picture.width, picture.height);
    return done < frames;
}
