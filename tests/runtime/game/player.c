/* A game that plays a frame for each line that it reads, and says what came of it.

   player NAME WIDTH HEIGHT: "w" waits for a server, "t" tries once; "p" processes a frame, "q" does
   with little patience; "f" sends some by every way there is, whatever the server may answer. */
#define VELATURA_IMPLEMENTATION
#include "velatura.h"

static void paint(unsigned char *pixels, uint32_t width, uint32_t height, unsigned seed) {
    for (uint32_t i = 0; i < width * height * 4u; i++)
        pixels[i] = (unsigned char)(i * 7u + i / 1021u + seed * 31u);
}

static void everything(velatura_client *client, velatura_frame frame, velatura_picture picture) {
    velatura_view view;
    velatura_canvas canvas;
    frame.deadline_us = 2000;
    unsigned char sum = 0;
    for (int i = 0; i < 4; i++) {
        picture.width = picture.height = 0;
        velatura_process(client, &frame, &picture);
        velatura_submit(client, &frame);
        if (velatura_result(client, &view, 1000) < VELATURA_LATE && view.pixels)
            for (uint32_t y = 0; y < view.height; y++)
                for (uint32_t x = 0; x < view.width * 4u; x++)
                    sum ^= ((const unsigned char *)view.pixels)[(size_t)y * view.stride + x];
        velatura_frame drawn = frame;
        drawn.flags = VELATURA_HAS_MOTION | VELATURA_HAS_DEPTH | VELATURA_HAS_REACTIVE;
        if (velatura_begin(client, &drawn, &canvas) == VELATURA_OK) {
            memset(canvas.pixels, sum, (size_t)frame.width * frame.height * 4u);
            memset(canvas.motion, 0, (size_t)frame.width * frame.height * 8u);
            memset(canvas.depth, 0, (size_t)frame.width * frame.height * 4u);
            memset(canvas.reactive, 0, (size_t)frame.width * frame.height);
            velatura_submit(client, &drawn);
        }
        velatura_collect(client, &picture, 1000);
    }
}

int main(int count, char **words) {
    if (count != 4) return 2;
    const velatura_options options = {20000000u, 1}; /* the machine may be busy */
    velatura_client *client = velatura_open(words[1], &options);
    if (!client) return 3;
    velatura_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.width = (uint32_t)atoi(words[2]);
    frame.height = (uint32_t)atoi(words[3]);
    const size_t bytes = (size_t)frame.width * frame.height * 4u;
    unsigned char *in = (unsigned char *)malloc(bytes), *out = (unsigned char *)malloc(bytes * 64u);
    float *motion = (float *)calloc(bytes / 4u, 8);
    if (!in || !out || !motion) return 4;
    frame.pixels = in;
    frame.motion = motion;
    char line[16];
    for (unsigned turn = 0; fgets(line, sizeof line, stdin); turn++) {
        velatura_picture picture;
        memset(&picture, 0, sizeof picture);
        picture.pixels = out;
        picture.bytes = bytes * 64u;
        velatura_status status = VELATURA_OK;
        int same = 0;
        paint(in, frame.width, frame.height, turn);
        if (line[0] == 'w') status = velatura_wait(client, 60000000u);
        if (line[0] == 't') status = velatura_wait(client, 0);
        frame.deadline_us = line[0] == 'q' ? 20000u : 0;
        if (line[0] == 'p' || line[0] == 'q') {
            status = velatura_process(client, &frame, &picture);
            same = picture.width == frame.width && picture.height == frame.height && !memcmp(in, out, bytes);
        }
        if (line[0] == 'f') everything(client, frame, picture);
        printf("%s %s %s\n", velatura_status_text(status), same ? "same" : "other", velatura_error(client));
        fflush(stdout);
    }
    velatura_close(client);
    free(in);
    free(out);
    free(motion);
    return 0;
}
