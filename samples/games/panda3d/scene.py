"""A street in Panda3D, off screen, with true motion vectors: restyled in the loop, the UI on top."""

import argparse
from pathlib import Path

import numpy as np
from direct.gui.OnscreenText import OnscreenText
from direct.showbase.ShowBase import ShowBase
from panda3d import core
from street import CUT, Street
from velatura.runtime import PostProcess
from velatura.runtime.game import MotionConvention

VERTEX = """#version 330
uniform mat4 p3d_ModelViewProjectionMatrix, p3d_ModelMatrix, other;
in vec4 p3d_Vertex; in vec3 p3d_Normal; in vec2 p3d_MultiTexCoord0;
out vec4 now, then; out vec3 place, normal; out vec2 uv;
void main() {
    gl_Position = now = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    then = other * p3d_Vertex;  // The same point of the same part in the previous frame.
    place = (p3d_ModelMatrix * p3d_Vertex).xyz;
    normal = mat3(p3d_ModelMatrix) * p3d_Normal;
    uv = p3d_MultiTexCoord0;
}"""
COLOUR = """#version 330
uniform sampler2D p3d_Texture0; uniform vec3 eye; uniform vec4 look;  // Repeats (2), gloss, own light.
in vec3 place, normal; in vec2 uv; out vec4 colour;
void main() {
    vec3 n = normalize(normal), sun = normalize(vec3(0.5, -0.6, 0.6)), view = normalize(eye - place);
    float shine = look.z * pow(max(dot(n, normalize(sun + view)), 0.0), 32.0);
    vec3 own = texture(p3d_Texture0, uv * look.xy).rgb;
    vec3 lit = own * (0.45 + 0.65 * max(dot(n, sun), 0.0)) + shine;
    vec3 air = mix(vec3(0.70, 0.78, 0.88), lit, exp(-0.01 * distance(eye, place)));
    colour = vec4(mix(air, own, look.w), 1.0);
}"""
# Panda3D keeps pictures as BGRA in memory, so that (depth, y, x) is read as (x, y, depth).
MOTION = """#version 330
in vec4 now, then; out vec4 velocity;
void main() { velocity = vec4(now.w, then.yx / then.w - now.yx / now.w, 1.0); }"""


class Game:
    """The street, the two buffers that it is drawn into, and the screen with its UI."""

    def __init__(self, size: tuple[int, int]) -> None:
        options = f"load-display p3headlessgl\nwin-size {size[0]} {size[1]}\ntextures-power-2 none\n"
        core.load_prc_file_data("", options + "audio-library-name null\nnotify-level-device fatal")
        self.base, self.size = ShowBase(windowType="offscreen"), size
        self.street, self.buffers = Street(self.base.loader), []
        self.lens = core.PerspectiveLens()
        self.lens.set_fov(64)
        self.lens.set_aspect_ratio(size[0] / size[1])
        self.lens.set_near_far(0.1, 500)
        # Edges of colour are smoothed by four samples a pixel; motion and depth must not be mixed so.
        self.colour = self.buffer(COLOUR, bits=8, samples=4)
        self.motion = self.buffer(MOTION, bits=32, samples=0)
        self.shown, card = core.Texture(), core.CardMaker("screen")
        card.set_frame_fullscreen_quad()
        self.base.render2d.attach_new_node(card.generate()).set_texture(self.shown)
        place = {
            "pos": (8, -28),
            "scale": 20,
            "align": core.TextNode.A_left,
            "parent": self.base.pixel2d,
        }
        OnscreenText("  Lap 2/3   01:27.4  ", fg=(1, 1, 0.8, 1), bg=(0.1, 0.1, 0.2, 1), **place)

    def buffer(self, fragment: str, *, bits: int, samples: int) -> core.Texture:
        """A camera that draws the street by this shader; its pixels can be read from the texture."""
        properties = core.FrameBufferProperties()
        properties.set_rgba_bits(bits, bits, bits, bits)
        properties.set_float_color(bits == 32)
        properties.set_depth_bits(24)
        properties.set_multisamples(samples)
        buffer = self.base.graphics_engine.make_output(
            self.base.pipe, "buffer", -1, properties, core.WindowProperties.size(*self.size),
            core.GraphicsPipe.BF_refuse_window, self.base.win.gsg, self.base.win,
        )  # fmt: skip
        texture, state = core.Texture(), core.NodePath("state")
        buffer.add_render_texture(
            texture, core.GraphicsOutput.RTM_copy_ram, core.GraphicsOutput.RTP_color
        )
        state.set_shader(core.Shader.make(core.Shader.SL_GLSL, VERTEX, fragment))
        camera = core.Camera("camera", self.lens)
        camera.set_initial_state(state.get_state())
        buffer.make_display_region().set_camera(self.street.eye.attach_new_node(camera))
        self.buffers.append(buffer)
        return texture

    def matrices(self, number: int) -> list[core.LMatrix4f]:
        """From each part's own space to the picture, in a frame."""
        self.street.pose(number)
        lens = self.lens.get_projection_mat()
        return [part.get_mat(self.street.eye) * lens for part in self.street.parts]

    def render(self, number: int, other: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour (H, W, 4) BGRA, motion (H, W, 2) to the frame `other`, depth (H, W); bottom row first.

        Motion is in normalised device coordinates, two for the picture's width and height, y upwards;
        depth is the distance along the view axis. A game gives `other` the frame that it showed before.
        """
        for part, matrix in zip(self.street.parts, self.matrices(other), strict=True):
            part.set_shader_input("other", matrix)
        self.street.pose(number)
        self.street.root.set_shader_input("eye", self.street.eye.get_pos())
        self.draw(screen=False)
        shape = (self.size[1], self.size[0], 4)
        found = np.frombuffer(self.motion.get_ram_image(), np.float32).reshape(shape)
        colour = np.frombuffer(self.colour.get_ram_image(), np.uint8).reshape(shape)
        return colour, found[:, :, :2], found[:, :, 2]

    def draw(self, *, screen: bool) -> None:
        """Either the street into its buffers, or the screen: the pass of velatura lies in between."""
        for buffer in self.buffers:
            buffer.set_active(not screen)
        self.base.win.set_active(screen)
        self.base.graphics_engine.render_frame()

    def show(self, picture: np.ndarray) -> None:
        """BGRA, bottom row first, on a quad as large as the screen, and the UI over it."""
        height, width = picture.shape[:2]
        self.shown.setup_2d_texture(width, height, core.Texture.T_unsigned_byte, core.Texture.F_rgba8)
        self.shown.set_ram_image(np.ascontiguousarray(picture))
        self.draw(screen=True)


def main() -> None:
    """`python scene.py OUT.png` writes the last frame, and as OUT.before.png how the game drew it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="starry-night")
    parser.add_argument("--frames", type=int, default=CUT + 10)
    parser.add_argument("--size", default="640x360")
    chosen = parser.parse_args()
    width, height = map(int, chosen.size.split("x"))
    game, vectors = Game((width, height)), MotionConvention(scale=(width / 2, -height / 2))
    with PostProcess(chosen.model, game.size, order="bgra", flipped=True, motion=vectors) as post:
        for number in range(chosen.frames):
            colour, motion, depth = game.render(number, number - 1)
            game.show(post(colour, motion, depth, reset=number == CUT))
    game.base.win.save_screenshot(core.Filename(chosen.out))
    game.show(colour)
    game.base.win.save_screenshot(core.Filename(chosen.out.with_suffix(".before.png")))


if __name__ == "__main__":
    main()
