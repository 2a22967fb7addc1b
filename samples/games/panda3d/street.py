"""What stands and moves in the street: nothing in this file is about velatura."""

from functools import cache

import numpy as np
from panda3d import core

CUT = 60
"""The frame in which the camera is suddenly elsewhere."""


@cache
def texture(name: str, side: int = 512) -> core.Texture:
    """Cells and their joints, or clouds, under grain of every scale; it repeats without a seam."""
    y, x = (a[..., None] / side for a in np.mgrid[:side, :side])

    def cells(columns: int, rows: int, joint: float, shift: float = 0.0) -> np.ndarray:
        """Where there is no joint, which takes so much of each cell; every second row is shifted."""
        across, down = x * columns + shift * (y * rows // 1 % 2), y * rows + (rows == 0) / 2
        return np.maximum(abs(across % 1 - 0.5), abs(down % 1 - 0.5)) < 0.5 - joint / 2

    random = np.fft.fft2(np.random.default_rng(7).normal(size=(side, side)))
    scale = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) + 1 / side
    grain, clouds = (np.fft.ifft2(random / scale**power).real[..., None] for power in (1, 1.7))
    bricks, glass = cells(8, 16, 0.12, 0.5), cells(4, 3, 0.5) & cells(16, 12, 0.12)
    picture = {
        "wall": np.where(bricks, (158, 84, 62), (190, 182, 170)),
        "house": np.where(glass, (56, 72, 96), np.where(bricks, (204, 178, 128), (168, 146, 108))),
        "paving": np.where(cells(8, 8, 0.05), (136, 132, 122), (92, 90, 84)),
        "planks": np.where(cells(6, 0, 0.06), (170, 122, 68), (70, 46, 28)),
        "metal": np.where(cells(24, 12, 0.1), (150, 158, 166), (90, 96, 104)),
        "stripes": np.where(cells(8, 0, 0.5), (204, 62, 50), (232, 226, 210)),
        "sky": (104, 150, 210) + 55 * (clouds / clouds.std()).clip(0, 2.4),
    }[name]
    picture = picture * (1 + (name != "sky") * 0.12 * grain / grain.std())
    made = core.Texture(name)
    made.setup_2d_texture(side, side, core.Texture.T_unsigned_byte, core.Texture.F_rgb)
    made.set_ram_image_as(np.uint8(picture.clip(0, 255)).tobytes(), "RGB")
    made.set_minfilter(core.SamplerState.FT_linear_mipmap_linear)
    made.set_anisotropic_degree(8)
    return made


class Street:
    """Houses, lamp posts and wires; a crate, a ball, a tram and a panda that move; a sky; an eye."""

    def __init__(self, loader) -> None:
        self.loader, self.root = loader, core.NodePath("street")
        self.eye = self.root.attach_new_node("eye")
        self.parts: list[core.NodePath] = []
        self.sky = self.put("smiley", "sky", (0, 0, 0), 300, (3, 2, 0, 1))
        self.put("box", "paving", (-30, -20, -1), (60, 120, 1), (15, 30, 0, 0))
        for k in range(12):
            side, y, tall = k % 2 * 2 - 1, k // 2 * 11, 7 + k * 5 % 6
            wall = "wall" if k % 3 == 1 else "house"
            self.put("box", wall, (side * 12 - 4, y, 0), (8, 9, tall), (2, tall / 4, 0, 0))
            self.put("box", "metal", (side * 5, y + 5, 0), (0.15, 0.15, 5), (1, 3, 0.4, 0))
            self.put("box", "metal", (-8, y + 5, 4 + k % 4 * 0.3), (16, 0.05, 0.05), (8, 1, 0.2, 0))
        self.crate = self.put("box", "planks", (-3, 9, 1.2), 1.6)
        self.ball = self.put("smiley", "stripes", (2.4, 8, 1), 0.8, (1, 1, 0.35, 0))
        self.tram = self.put("box", "house", (-4.5, 0, 0.2), (2.2, 8, 2.8), (2, 1, 0.2, 0))
        self.panda = self.put("panda-model", None, (1, 13, 0), 0.005, (1, 1, 0.1, 0))

    def put(self, model: str, skin: str | None, place, scale, look=(1, 1, 0, 0)) -> core.NodePath:
        """One more part, of a model that comes with Panda3D; `look` as the colour shader has it."""
        part = self.loader.load_model(f"models/{model}")
        part.set_pos(*place)
        part.set_scale(scale)
        part.set_shader_input("look", core.Vec4(*look))
        if skin:
            part.set_texture(texture(skin), 1)
        part.set_two_sided(model == "smiley")  # The sky is seen from inside.
        part.reparent_to(self.root)
        self.parts.append(part)
        return part

    def pose(self, number: int) -> None:
        """Put everything where it is in a frame."""
        t = number / 30
        self.crate.set_hpr(40 * t, 24 * t, 0)
        self.ball.set_pos(2.4 - 1.2 * t, 8, 0.8 + 1.8 * abs(np.sin(2.4 * t)))
        self.ball.set_hpr(30, 0, -80 * t)
        self.tram.set_y(30 - 6 * t)
        self.panda.set_h(50 * t)
        if number < CUT:
            self.eye.set_pos(0.8 * np.sin(0.7 * t), 2 * t + 1, 1.9)
            self.eye.set_hpr(10 * np.sin(0.8 * t + 0.3), 2, 0)
        else:
            self.eye.set_pos(6 - t, 26, 6)
            self.eye.set_hpr(160 + 8 * t, -14, 0)
        self.sky.set_pos(self.eye.get_pos())
