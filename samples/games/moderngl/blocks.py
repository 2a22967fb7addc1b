"""A sea of blocks in OpenGL over EGL, with velocity and depth attachments, restyled before the UI."""

import argparse
from pathlib import Path

import cv2
import moderngl
import numpy as np
from velatura.runtime import PostProcess
from velatura.runtime.game import DepthConvention, MotionConvention

NEAR, FAR = 0.1, 200.0
SIDE = 40
VERTEX = """#version 330
uniform mat4 camera[2]; uniform float time[2];  // This frame's and the previous one's.
in vec3 corner, normal; out vec4 clip[2]; out vec3 place, spot, facing; out vec2 column;
vec3 at(float t) {
    float wave = sin(0.45 * column.x + 1.3 * t) + cos(0.35 * column.y - 0.9 * t);
    return vec3(column, 0) + corner * vec3(0.5, 0.5, 2.2 + 0.6 * wave);
}
void main() {  // What moves in the shader is moved for both times: the motion stays true.
    column = vec2(gl_InstanceID % SIDE, gl_InstanceID / SIDE) - 0.5 * SIDE;
    place = at(time[0]); spot = corner; facing = normal;
    gl_Position = clip[0] = camera[0] * vec4(place, 1);
    clip[1] = camera[1] * vec4(at(time[1]), 1);
}""".replace("SIDE", str(SIDE))
FRAGMENT = """#version 330
uniform vec3 eye;
in vec4 clip[2]; in vec3 place, spot, facing; in vec2 column;
layout(location = 0) out vec4 colour; layout(location = 1) out vec2 velocity;
void main() {
    vec2 face = facing.z > 0.5 ? spot.xy * 1.5 : vec2(spot.x + spot.y, spot.z * 6.0);
    vec2 wide = fwidth(face), edge = abs(fract(face) - 0.5);
    vec2 line = smoothstep(vec2(0.38) - wide, vec2(0.38) + wide, edge);
    float chance = fract(sin(dot(column, vec2(12.9, 78.2))) * 43758.5);
    vec3 own = mix(vec3(0.82, 0.52, 0.30), vec3(0.34, 0.52, 0.62), chance);
    own *= 1.0 - 0.45 * max(line.x, line.y) * clamp(0.7 / (wide.x + wide.y) - 0.5, 0.0, 1.0);
    float light = 0.35 + 0.7 * max(dot(facing, normalize(vec3(0.4, -0.5, 0.8))), 0.0);
    colour = vec4(mix(vec3(0.75, 0.8, 0.9), own * light, exp(-0.02 * distance(eye, place))), 1);
    velocity = 0.5 * (clip[0].xy / clip[0].w - clip[1].xy / clip[1].w);
}"""
QUAD = """#version 330
in vec2 at; out vec2 uv; void main() { uv = at; gl_Position = vec4(at * 2.0 - 1.0, 0, 1); }"""
SHOW = """#version 330
uniform sampler2D seen; in vec2 uv; out vec4 colour; void main() { colour = texture(seen, uv); }"""


def cube() -> np.ndarray:
    """36 corners of a cube of side 2, each with its normal."""
    square = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, -1, 1), (1, 1, 1), (-1, 1, 1)])
    faces = [np.roll(square * (1, 1, sign), turn, 1) for sign in (1, -1) for turn in range(3)]
    normals = [np.roll((0, 0, sign), turn) for sign in (1, -1) for turn in range(3)]
    return np.float32([[*p, *n] for face, n in zip(faces, normals, strict=True) for p in face])


def camera(number: int, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the eye is in a frame, and the matrix from the world to the picture."""
    turn = 0.012 * number
    eye = np.array([14 * np.sin(turn), -14 * np.cos(turn), 7.5 + np.sin(3 * turn)])
    back = (eye - (0, 0, 2)) / np.linalg.norm(eye - (0, 0, 2))
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = right, np.cross(back, right), back
    view[:3, 3] = -view[:3, :3] @ eye
    lens = np.diag([1.5 / aspect, 1.5, (FAR + NEAR) / (NEAR - FAR), 0])
    lens[2:, 3] = 2 * FAR * NEAR / (NEAR - FAR), 0
    lens[3, 2] = -1
    return eye, lens @ view


class Game:
    """The scene, the picture that it is drawn into, and the screen."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.gl = gl = moderngl.create_context(standalone=True, backend="egl")
        self.size = size
        self.blocks = gl.program(VERTEX, FRAGMENT)
        self.corners = gl.vertex_array(self.blocks, gl.buffer(cube().tobytes()), "corner", "normal")
        colour, velocity = gl.texture(size, 4), gl.texture(size, 2, dtype="f2")
        self.picture = gl.framebuffer([colour, velocity], gl.depth_texture(size))
        self.velocity = gl.framebuffer([velocity])
        self.screen = gl.simple_framebuffer(size)
        strip = gl.buffer(np.float32([0, 0, 1, 0, 0, 1, 1, 1]).tobytes())
        self.quad = gl.vertex_array(gl.program(QUAD, SHOW), strip, "at", mode=gl.TRIANGLE_STRIP)
        self.shown = gl.texture(size, 4)

    def render(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGBA, velocity in parts of the picture since the previous frame, depth as the GPU has it.

        Rows come from the bottom, as OpenGL reads them.
        """
        (eye, now), (_, then) = (camera(n, self.size[0] / self.size[1]) for n in (number, number - 1))
        self.blocks["camera"].write(np.float32([now.T, then.T]).tobytes())
        self.blocks["time"].write(np.float32([number / 30, (number - 1) / 30]).tobytes())
        self.blocks["eye"].value = tuple(eye)
        self.picture.clear(0.75, 0.8, 0.9, 1.0)
        self.velocity.clear()  # The sky stands still.
        self.picture.use()
        self.gl.enable(self.gl.DEPTH_TEST)
        self.corners.render(instances=SIDE * SIDE)
        shape = self.size[::-1]
        colour = np.frombuffer(self.picture.read(components=4), np.uint8).reshape(*shape, 4)
        velocity = np.frombuffer(self.picture.read(components=2, attachment=1, dtype="f2"), np.float16)
        depth = np.frombuffer(self.picture.read(components=1, attachment=-1, dtype="f4"), np.float32)
        return colour, velocity.reshape(*shape, 2), depth.reshape(shape)

    def show(self, picture: np.ndarray) -> np.ndarray:
        """Draw a picture over the screen and the UI over that; what the screen then holds."""
        self.shown.write(np.ascontiguousarray(picture))
        self.screen.use()
        self.gl.disable(self.gl.DEPTH_TEST)
        self.shown.use()
        self.quad.render()
        self.screen.clear(0.1, 0.1, 0.16, 1.0, viewport=(8, 8, 104, 14))
        for k in range(12):
            self.screen.clear(0.9, 0.2 + 0.05 * k, 0.2, 1.0, viewport=(12 + 8 * k, 11, 7, 8))
        return np.frombuffer(self.screen.read(components=3), np.uint8).reshape(*self.size[::-1], 3)[
            ::-1
        ]


def main() -> None:
    """`python blocks.py OUT.png` writes the last frame, and as OUT.before.png how the game drew it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="starry-night")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", default="640x360")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    game = Game((width, height))
    with PostProcess(
        chosen.model,
        game.size,
        flipped=True,
        motion=MotionConvention(scale=(width, -height), direction="from_previous"),
        depth=DepthConvention(kind="device", near=NEAR, far=FAR),
    ) as post:
        for number in range(chosen.frames):
            colour, velocity, depth = game.render(number)
            screen = game.show(post(colour, velocity, depth, reset=number == 0))
    cv2.imwrite(str(chosen.out), screen[:, :, ::-1])
    cv2.imwrite(str(chosen.out.with_suffix(".before.png")), game.show(colour)[:, :, ::-1])


if __name__ == "__main__":
    main()
