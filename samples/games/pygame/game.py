"""A 2-D game in pygame, restyled beside it with a frame of latency; the HUD drawn after stays crisp."""

import argparse
import os
from pathlib import Path

import numpy as np

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # No window; SDL_VIDEODRIVER=x11 opens one.
import pygame
from velatura.runtime import PostProcess

TILE = 32


class Sprite:
    """A picture, where it is opaque, how far away it is, and where it was in the previous frame."""

    def __init__(self, surface: pygame.Surface, depth: float) -> None:
        self.surface, self.depth = surface, depth
        self.opaque = pygame.surfarray.array_alpha(surface).T > 127
        self.before: tuple[int, int] | None = None


def tile(colour: tuple[int, int, int], *, bricks: bool) -> pygame.Surface:
    """A square of the level with grain, and joints."""
    grain = np.random.default_rng(colour[0]).normal(0, 9, (TILE // 2, TILE // 2, 1))
    pixels = np.array(colour) + grain.repeat(2, 0).repeat(2, 1)
    for lines in (pixels[::16], pixels[:, ::16]):
        lines *= 0.6 if bricks else 1.0
    return pygame.surfarray.make_surface(np.uint8(pixels.clip(0, 255)))


def hills(width: int, height: int, colour: tuple[int, int, int]) -> pygame.Surface:
    """A row of hills with bands of grass."""
    surface = pygame.Surface((width, height), pygame.SRCALPHA)
    random = np.random.default_rng(colour[0])
    waves = [(k, random.uniform(0, 6), random.uniform(0.3, 0.8) / k) for k in (2, 3, 5, 9, 21)]
    for x in range(width):
        top = int(height * (0.5 + 0.2 * sum(a * np.sin(k * x / 150 + at) for k, at, a in waves)))
        for band in range(6):
            shade = [c * (1.15 - 0.08 * band) for c in colour]
            pygame.draw.line(surface, shade, (x, top + band * 14 + x * 7 % 5), (x, height))
    return surface


class Level:
    """A landscape that scrolls in three layers, coins that hover, a hero who runs and jumps."""

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = size
        self.picture = pygame.Surface(size)
        self.motion, self.depth = (np.zeros((height, width, *n), np.float32) for n in ((2,), ()))
        sky = np.linspace((86, 142, 220), (214, 228, 240), height)[None].repeat(width, 0)
        self.sky = Sprite(pygame.surfarray.make_surface(np.uint8(sky)), 1000)
        self.layers = [
            (0.3, Sprite(hills(3 * width, height, (92, 130, 176)), 300)),
            (0.6, Sprite(hills(3 * width, height, (74, 132, 88)), 100)),
            (1.0, Sprite(self.tiles(3 * width, height), 20)),
        ]
        coin = pygame.Surface((20, 20), pygame.SRCALPHA)
        pygame.draw.circle(coin, (196, 146, 24), (10, 10), 10)
        pygame.draw.circle(coin, (250, 214, 84), (10, 10), 7)
        pygame.draw.rect(coin, (196, 146, 24), (8, 5, 4, 10))
        self.coins = [Sprite(coin, 15) for _ in range(2 * width // 96)]
        hero = pygame.Surface((28, 44), pygame.SRCALPHA)
        pygame.draw.rect(hero, (206, 58, 52), (4, 16, 20, 18), border_radius=4)
        pygame.draw.circle(hero, (240, 200, 160), (14, 10), 9)
        pygame.draw.rect(hero, (52, 62, 110), (4, 3, 20, 5))
        for leg in (6, 16):
            pygame.draw.rect(hero, (52, 62, 110), (leg, 32, 6, 12))
        self.hero = Sprite(hero, 10)

    @staticmethod
    def tiles(width: int, height: int) -> pygame.Surface:
        """The ground with its pits, and walls to jump on, tile by tile."""
        surface = pygame.Surface((width, height), pygame.SRCALPHA)
        ground, wall = tile((150, 106, 60), bricks=False), tile((176, 90, 66), bricks=True)
        for column in range(width // TILE):
            for row in range(2 + column * 7 % 3 // 2):
                surface.blit(ground, (column * TILE, height - (row + 1) * TILE))
            if column % 9 in (4, 5, 6):
                surface.blit(wall, (column * TILE, height - 5 * TILE))
        return surface

    def put(self, sprite: Sprite, x: float, y: float) -> None:
        """Draw a sprite, and beside the picture its distance and the way back to where it was."""
        place = round(x), round(y)
        seen = self.picture.blit(sprite.surface, place)
        area = slice(seen.top, seen.bottom), slice(seen.left, seen.right)
        opaque = sprite.opaque[seen.top - place[1] :, seen.left - place[0] :][: seen.h, : seen.w]
        self.motion[area][opaque] = np.subtract(sprite.before or place, place)
        self.depth[area][opaque] = sprite.depth
        sprite.before = place

    def draw(self, number: int) -> None:
        """A frame of the game."""
        width, height = self.picture.get_size()
        camera = 3 * number
        self.put(self.sky, 0, 0)
        for speed, sprite in self.layers:
            self.put(sprite, -camera * speed, 0)
        for k, coin in enumerate(self.coins):
            self.put(coin, 96 * k + 60 - camera, height - 130 + 6 * np.sin(0.15 * number + k))
        jump = abs(np.sin(0.07 * number))
        self.put(self.hero, width * 0.4 + 20 * np.sin(0.05 * number), height - 106 - 70 * jump)


def hud(screen: pygame.Surface, number: int) -> None:
    """What no network may touch: text of one pixel's width."""
    pygame.draw.rect(screen, (250, 214, 84), (7, 7, 162, 30))
    pygame.draw.rect(screen, (24, 24, 40), (8, 8, 160, 28))
    text = f"COINS {number // 20:02d}   TIME {number / 60:05.1f}"
    screen.blit(pygame.font.Font(None, 20).render(text, True, (255, 255, 230)), (14, 16))


def main() -> None:
    """`python game.py OUT.png` writes the last frame, and as OUT.before.png how the game drew it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="starry-night")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--rate", type=int, default=30)
    chosen = parser.parse_args()
    pygame.display.init()
    pygame.font.init()
    size = tuple(map(int, chosen.size.split("x")))
    screen, clock, level = pygame.display.set_mode(size), pygame.time.Clock(), Level(size)
    with PostProcess(chosen.model, size, order="rgb", mode="pipelined", rate=chosen.rate) as post:
        for number in range(chosen.frames):
            level.draw(number)
            pixels = pygame.surfarray.pixels3d(level.picture).swapaxes(
                0, 1
            )  # A view: nothing is copied.
            shown = post(pixels, level.motion, level.depth, reset=number == 0)
            pygame.surfarray.blit_array(screen, shown.swapaxes(0, 1))
            del pixels, shown  # A view locks the surface.
            hud(screen, number)
            pygame.display.flip()
            clock.tick(chosen.rate)
    pygame.image.save(screen, chosen.out)
    screen.blit(level.picture, (0, 0))
    hud(screen, number)
    pygame.image.save(screen, chosen.out.with_suffix(".before.png"))


if __name__ == "__main__":
    main()
