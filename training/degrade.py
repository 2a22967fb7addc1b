"""How an upscaler's input is made from a photograph: bicubic, the paper's Gaussian, or like a video."""

import io

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

GAUSSIAN_SIGMA = 1.0
"""Of the blur before the reduction, in pixels of the photograph (Johnson et al., section 4.2)."""


def bicubic_downscale(images: Tensor, scale: int) -> Tensor:
    """Antialiased bicubic (a = -0.5) reduction, quantised to 8 bits as a decoded frame would be.

    (N, C, H, W) in 0..1 -> (N, C, H / scale, W / scale). Agrees with MATLAB's `imresize`, which made
    the field's standard low-resolution pictures.
    """
    height, width = images.shape[2] // scale, images.shape[3] // scale
    low = F.interpolate(images, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return low.clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def gaussian_downscale(images: Tensor, scale: int) -> Tensor:
    """The paper's reduction: Gaussian blur of sigma 1, then bicubic. Shapes as `bicubic_downscale`."""
    reach = round(4 * GAUSSIAN_SIGMA)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / GAUSSIAN_SIGMA).square())
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    padded = F.pad(images, [reach] * 4, mode="reflect")
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    blurred = F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)
    return bicubic_downscale(blurred, scale)


def video_downscale(images: Tensor, scale: int, draw: np.random.Generator) -> Tensor:
    """As a clip from the web: blur, bicubic reduction, noise, ringing, and H.264 at a random quality.

    The blur's sigma is 0 to 0.8 pixels of the photograph, the noise's deviation 0 to 3 levels, the CRF
    18 to 35; three in ten are sharpened too much, as cameras and transcoders do, which leaves bright
    and dark seams along edges. The second of two frames is taken, which is predicted from the first.
    Shapes as `bicubic_downscale`; every picture draws its own.
    """
    found: list[Tensor] = []
    for image in images:
        pixels = image.permute(1, 2, 0).numpy()
        sigma = 0.8 * draw.random()
        if sigma > 0.2:
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32)
        blurred = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None]
        small = bicubic_downscale(blurred, scale)[0].permute(1, 2, 0).numpy() * 255.0
        if draw.random() < 0.3:
            soft = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), np.float32).reshape(small.shape)
            small = small + 1.2 * draw.random() * (small - soft)
        deviation = 3.0 * draw.random()
        frames = [
            np.clip(np.round(small + draw.normal(0.0, deviation, small.shape)), 0, 255).astype(np.uint8)
            for _ in range(2)
        ]
        coded = h264_frames(frames, crf=int(18 + 18 * draw.random()))[-1]
        found.append(torch.from_numpy(coded).permute(2, 0, 1).float() / 255.0)
    return torch.stack(found)


Frame = npt.NDArray[np.uint8]


def h264_frames(frames: list[Frame], *, crf: int) -> list[Frame]:
    """(H, W, 1) luma or (H, W, 3) RGB frames, through H.264 and back."""
    height, width, channels = frames[0].shape
    even = (height + height % 2, width + width % 2)
    # yuv420p needs even sides. Luma is the Y plane as it stands: a conversion would change its range.
    padding = ((0, even[0] - height), (0, even[1] - width), (0, 0))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = even
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "threads": "1"}
        for frame in frames:
            padded = np.pad(frame, padding, mode="edge")
            if channels == 3:
                picture = av.VideoFrame.from_ndarray(padded, format="rgb24")
            else:
                gray = np.full((even[0] // 2, even[1]), 128, np.uint8)
                planes = np.vstack([padded[:, :, 0], gray])
                picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    buffer.seek(0)
    found: list[Frame] = []
    with av.open(buffer, "r", format="h264") as container:
        for picture in container.decode(video=0):
            if channels == 3:
                pixels = picture.to_ndarray(format="rgb24")
            else:
                pixels = picture.to_ndarray(format="yuv420p")[:, :, None]
            found.append(np.array(pixels[:height, :width], np.uint8))
    return found
