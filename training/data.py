"""Photographs and videos as training crops: decoded by several threads, cached, drawn by seed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.error import FFmpegError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .degrade import bicubic_downscale, gaussian_downscale, video_downscale
from .synthetic import screen_crop

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts"})

CACHE_BYTES = 6 << 30
"""Decoded photographs kept in memory; what does not fit is decoded anew at every use."""

PAIRS_PER_VIDEO = 24
PAIR_SIDE = 480
"""Frames of pairs are reduced to this short side, which bounds what a video costs in memory."""

Image = npt.NDArray[np.uint8]


def data_root() -> Path:
    """Where weights, photographs and paintings lie: `$VELATURA_DATA`, else `../shared/data`.

    Raises FileNotFoundError when neither exists.
    """
    given = os.environ.get("VELATURA_DATA")
    # Beside the checkout: of the code, or, where that is installed, the one that is worked in.
    checkouts = (Path(__file__).resolve().parents[1], Path.cwd())
    roots = [Path(given)] if given else [path.parent / "shared" / "data" for path in checkouts]
    for root in roots:
        if root.is_dir():
            return root
    raise FileNotFoundError(f"no data folder at {roots[-1]}: set VELATURA_DATA to it")


def read_image(path: Path) -> Image:
    """An RGB picture, (H, W, 3) uint8. Raises ValueError when it cannot be decoded."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is not a picture that can be decoded")
    return np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8, copy=False)


class Sample(NamedTuple):
    """One batch of training data, pictures in 0..1."""

    photos: Tensor
    """(N, C, crop, crop): what is styled, or what an upscaler should give."""
    low: Tensor | None = None
    """(N, C, crop / scale, crop / scale): what an upscaler is given."""
    frames: Tensor | None = None
    """(2, N, 3, crop, crop): a frame of a video and the one after it."""


class Pictures(Sequence[Image | None]):
    """Decoded pictures, None where one is not kept, that other processes are handed without a copy.

    The first time that they are pickled for another process, they move into one piece of shared memory;
    what is sent is its address. A copy for each of eight workers was 8 GB for 1,300 photographs.
    """

    def __init__(self, pictures: Iterable[Image | None]) -> None:
        self._pictures = list(pictures)
        self._memory: Tensor | None = None

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: Any) -> Any:
        return cast(Any, self._pictures[index])

    def __getstate__(self) -> tuple[Tensor, list[tuple[int, ...] | None]]:
        shapes = [None if picture is None else picture.shape for picture in self._pictures]
        if self._memory is None:
            size = sum(picture.nbytes for picture in self._pictures if picture is not None)
            memory: Tensor = cast(Any, torch.empty(size, dtype=torch.uint8)).share_memory_()
            for number, (picture, view) in enumerate(
                zip(self._pictures, self._views(memory, shapes), strict=True)
            ):
                if picture is not None and view is not None:
                    view[:] = picture
                    # One after another, so that there are never two of all.
                    self._pictures[number] = view
            self._memory = memory
        return self._memory, shapes

    def __setstate__(self, state: tuple[Tensor, list[tuple[int, ...] | None]]) -> None:
        self._memory, shapes = state
        self._pictures = list(self._views(self._memory, shapes))

    @staticmethod
    def _views(memory: Tensor, shapes: Iterable[tuple[int, ...] | None]) -> Iterator[Image | None]:
        whole, start = cast(Image, memory.numpy()), 0
        for shape in shapes:
            if shape is None:
                yield None
                continue
            size = int(np.prod(shape))
            yield whole[start : start + size].reshape(shape)
            start += size


class PhotoCrops:
    """Random square crops of photographs, with flips and quarter turns.

    Batch `index` is a function of the seed and `index` alone: a resumed run sees what it would have.
    Row `r` depends on `r` and not on the number of rows, so that several processes share a batch.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        crop: int,
        seed: int,
        luma: bool,
        reduce: float = 1.0,
        synthetic: float = 0.0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Read every photograph of `folders` once.

        `luma` keeps BT.601 limited-range luma only. Crops are reduced by factors from 1 down to
        `reduce`, where the photograph is large enough. The part `synthetic` of the crops is drawn, not
        cut: games and screens. Raises FileNotFoundError for a folder that is
        missing or holds no usable photograph of at least `crop` pixels, PermissionError for one that
        cannot be read.
        """
        self.crop = crop
        self.seed = seed
        self.luma = luma
        self.reduce = reduce
        self.synthetic = synthetic
        self.paths: list[Path] = []
        self.skipped = 0
        photos: list[Image | None] = []
        areas: list[int] = []
        left = cache_bytes
        for folder in folders:
            before = len(self.paths)
            files = list_files(folder, IMAGE_SUFFIXES, "photographs")
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for path, photo in zip(files, pool.map(self._read, files), strict=True):
                    if photo is None:
                        self.skipped += 1
                        continue
                    left -= photo.nbytes
                    self.paths.append(path)
                    photos.append(photo if left >= 0 else None)
                    areas.append(photo.shape[0] * photo.shape[1])
            if len(self.paths) == before:
                raise FileNotFoundError(
                    f"{folder} holds no photograph of at least {self.crop} pixels "
                    f"({len(files)} files, all broken or too small)"
                )
        self.photos = Pictures(photos)
        """Decoded, or None where the cache was full."""
        # Larger photographs hold more distinct crops.
        self._share = np.array(areas, np.float64) / sum(areas)

    def _read(self, path: Path) -> Image | None:
        """The photograph, or None when it is broken or too small."""
        try:
            photo = read_image(path)
        except ValueError:
            return None
        if min(photo.shape[:2]) < self.crop:
            return None
        return limited_luma(photo) if self.luma else photo

    def batch(self, index: int, size: int, first: int = 0) -> Tensor:
        """(size, C, crop, crop) float32 in 0..1, C = 1 for luma and 3 (RGB) otherwise."""
        channels = 1 if self.luma else 3
        crops = np.empty((size, self.crop, self.crop, channels), np.uint8)
        for row in range(size):
            draw = np.random.default_rng((self.seed, index, first + row))
            if self.synthetic and draw.random() < self.synthetic:
                drawn = screen_crop(self.crop, draw)
                crops[row] = limited_luma(drawn) if self.luma else drawn
                continue
            number = int(draw.choice(len(self.photos), p=self._share))
            crops[row] = self._cut(self._photo(number), draw)
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255.0)

    def _photo(self, number: int) -> Image:
        kept = self.photos[number]
        photo = self._read(self.paths[number]) if kept is None else kept
        if photo is None:
            raise FileNotFoundError(f"{self.paths[number]} has gone since the training began")
        return photo

    def _cut(self, photo: Image, draw: np.random.Generator) -> Image:
        """One crop, turned and mirrored at random: an upscaler knows no up and down."""
        largest = min(round(self.crop / self.reduce), *photo.shape[:2])
        side = self.crop + (_below(draw, largest - self.crop + 1) if largest > self.crop else 0)
        piece = _square(photo, side, draw)
        if side > self.crop:
            small = cv2.resize(piece, (self.crop, self.crop), interpolation=cv2.INTER_AREA)
            piece = np.asarray(small, np.uint8).reshape(self.crop, self.crop, -1)
        piece = np.rot90(piece, _below(draw, 4))
        return piece[:, ::-1] if _below(draw, 2) else piece


class UprightCrops(PhotoCrops):
    """Crops for style: mirrored but never turned, and of a varying part of the photograph.

    Sky belongs above: a style net learns to treat regions by what they show. Exposure and contrast
    vary: photographs are all well lit, games and films are not.
    """

    def _cut(self, photo: Image, draw: np.random.Generator) -> Image:
        largest = min(photo.shape[0], photo.shape[1], 2 * self.crop)
        piece = _square(photo, self.crop + _below(draw, largest + 1 - self.crop), draw)
        small = cv2.resize(piece, (self.crop, self.crop), interpolation=cv2.INTER_AREA)
        piece = _exposed(np.array(small, np.uint8), draw)
        return piece[:, ::-1] if _below(draw, 2) else piece


class FramePairs:
    """Random crops, at one place, of two successive frames of a video."""

    def __init__(self, folders: Sequence[Path], *, crop: int, seed: int) -> None:
        """Decode up to 24 pairs of every video, spread over its length.

        Raises FileNotFoundError for a folder that is missing or holds no video that can be decoded and
        is at least `crop` pixels on its short side.
        """
        self.crop = crop
        self.seed = seed
        self.skipped = 0
        frames: list[Image] = []
        for folder in folders:
            before = len(frames)
            files = list_files(folder, VIDEO_SUFFIXES, "videos")
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for pairs in pool.map(partial(read_pairs, least_side=crop), files):
                    frames += (frame for pair in pairs for frame in pair)
                    self.skipped += not pairs
            if len(frames) == before:
                raise FileNotFoundError(
                    f"{folder} holds no video of at least {crop} pixels "
                    f"({len(files)} files, all broken or too small)"
                )
        self.frames = Pictures(frames)
        """A frame and the one after it, by turns."""

    @property
    def pairs(self) -> list[tuple[Image, Image]]:
        """The successive frames."""
        return list(zip(self.frames[::2], self.frames[1::2], strict=True))

    def batch(self, index: int, size: int, first: int = 0) -> Tensor:
        """(2, size, 3, crop, crop) float32 RGB in 0..1."""
        crops = np.empty((2, size, self.crop, self.crop, 3), np.uint8)
        for row in range(size):
            draw = np.random.default_rng((self.seed, index, first + row, 1))
            number = 2 * _below(draw, len(self.frames) // 2)
            pair: list[Image] = self.frames[number : number + 2]
            height, width = pair[0].shape[:2]
            top, left = _below(draw, height - self.crop + 1), _below(draw, width - self.crop + 1)
            for place, frame in enumerate(pair):
                crops[place, row] = frame[top : top + self.crop, left : left + self.crop]
        return torch.from_numpy(crops).permute(0, 1, 4, 2, 3).float().div_(255.0)


class Samples:
    """All that a recipe trains on: batch `index` is a function of the seed and `index`.

    Without a `degradation` there is no input of lower quality: a style's input is the photograph.
    """

    def __init__(
        self, photos: PhotoCrops, *, videos: FramePairs | None, scale: int, degradation: str
    ) -> None:
        self.photos = photos
        self.videos = videos
        self.scale = scale
        self.degradation = degradation

    @property
    def skipped(self) -> int:
        """Files that were broken or too small."""
        return self.photos.skipped + (self.videos.skipped if self.videos else 0)

    def batch(self, index: int, size: int, first: int = 0) -> Sample:
        """Rows `first` to `first + size` of batch `index`."""
        photos = self.photos.batch(index, size, first)
        frames = self.videos.batch(index, size, first) if self.videos else None
        return Sample(photos, self._low(photos, index, first), frames)

    def _low(self, photos: Tensor, index: int, first: int) -> Tensor | None:
        if not self.degradation:
            return None
        if self.degradation == "gaussian":
            return gaussian_downscale(photos, self.scale)
        if self.degradation == "video":
            rows = [
                video_downscale(
                    photo[None],
                    self.scale,
                    np.random.default_rng((self.photos.seed, index, first + row, 2)),
                )
                for row, photo in enumerate(photos)
            ]
            return torch.cat(rows)
        return bicubic_downscale(photos, self.scale)


def stream(
    samples: Samples, steps: range, size: int, *, first: int = 0, workers: int = 0
) -> Iterator[Sample]:
    """The batches of `steps` in order, made in this process or ahead of time by `workers` others."""
    dataset = _Rows(samples, size, first)
    if not workers:
        yield from (dataset[index] for index in steps)
        return
    yield from DataLoader(
        cast("Dataset[Sample]", dataset),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=4,
        worker_init_fn=_single_thread,
        # A fork inherits the locks of libraries' threads, and may wait for them for ever.
        multiprocessing_context="spawn",
    )


class _Rows:
    """`Samples` as the map from a step to a batch that a `DataLoader` wants."""

    def __init__(self, samples: Samples, size: int, first: int) -> None:
        self._samples = samples
        self._size = size
        self._first = first

    def __getitem__(self, index: int) -> Sample:
        return self._samples.batch(index, self._size, self._first)


def _single_thread(worker: int) -> None:
    """A worker is one of several: its libraries must not start threads for every core."""
    del worker
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def list_files(folder: Path, suffixes: frozenset[str], what: str) -> list[Path]:
    """The folder's files with these suffixes, subfolders included, in order.

    Raises FileNotFoundError when it is missing or has none, PermissionError when it cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of {what} at {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"the folder {folder} may not be read: change its permissions")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise FileNotFoundError(f"{folder} holds no {what} ({', '.join(sorted(suffixes))})")
    return files


def read_pairs(path: Path, *, least_side: int) -> list[tuple[Image, Image]]:
    """Up to 24 pairs of successive RGB frames, spread over the video; empty when it cannot be used."""
    frames: list[Image] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = stream.frames or round(float((container.duration or 0) / av.time_base) * 30)
            every = max(2, count // PAIRS_PER_VIDEO)
            for number, frame in enumerate(container.decode(stream)):
                if number % every > 1:
                    continue
                side = min(frame.width, frame.height)
                if side < least_side:
                    return []
                reduce = min(1.0, max(PAIR_SIDE, least_side) / side)
                size = (round(frame.width * reduce), round(frame.height * reduce))
                pixels = frame.reformat(*size, format="rgb24").to_ndarray()
                frames.append(np.array(pixels, np.uint8))
                if len(frames) == 2 * PAIRS_PER_VIDEO:
                    break
    except (FFmpegError, IndexError, OSError):
        # What could be decoded of a damaged file is as good as any.
        pass
    return [(a, b) for a, b in zip(frames[::2], frames[1::2], strict=False) if a.shape == b.shape]


def _exposed(piece: Image, draw: np.random.Generator) -> Image:
    """Half of the crops with another gamma, three in ten darkened, by up to all their light."""
    if draw.random() < 0.5:
        table = (np.arange(256) / 255.0) ** np.exp2(draw.uniform(-0.8, 0.8)) * 255.0
        piece = cast(Image, np.round(table).astype(np.uint8)[piece])
    if draw.random() < 0.3:
        piece = (piece * draw.random()).astype(np.uint8)
    return piece


def _square(photo: Image, side: int, draw: np.random.Generator) -> Image:
    top = _below(draw, photo.shape[0] - side + 1)
    left = _below(draw, photo.shape[1] - side + 1)
    return photo[top : top + side, left : left + side]


def _below(draw: np.random.Generator, end: int) -> int:
    """A number from 0 to `end` - 1."""
    return int(cast(Any, draw).integers(end))


def limited_luma(rgb: Image) -> Image:
    """BT.601 limited-range luma, (H, W, 3) uint8 -> (H, W, 1) uint8: what a video's Y plane holds."""
    weights = np.array([65.481, 128.553, 24.966], np.float32) / 255.0
    return np.round(rgb.astype(np.float32) @ weights + 16.0).astype(np.uint8)[:, :, None]
