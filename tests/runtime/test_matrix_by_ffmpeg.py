"""Hundreds of combinations by chance, none of them wrong and called good: the FFmpeg command is judge.

What is drawn is as in `test_matrix`; here nothing of velatura, nor PyAV, has a say in the verdict.
"""

import random
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest

from . import filming
from .commands import velatura
from .matrix import GRID, TARGETS, Clip, draw

COUNT, BLOCK = 600, 20
QUICK = 1
"""Blocks that `make test` runs."""
EXACT, LIKE = 38.0, 26.0
"""Peak signal-to-noise of every frame, at a quarter of its size, of a lossless codec and of others, or
where chroma is padded; a neighbour in place of a frame has 20 dB."""
FAST = {"vp9": ("--preset", 8), "av1": ("--preset", 12)}
ROUNDED = 0.0025
"""Seconds: both files may round to 1 ms."""
COARSE = 0.045
"""Seconds by which sound may move that was made anew, or is held by a container of coarse times."""


@dataclass
class Heard:
    """What the command reads of one file, with times in seconds."""

    frames: list[float] = field(default_factory=list[float])
    sounds: dict[int, list[tuple[float, str]]] = field(
        default_factory=lambda: defaultdict(list[tuple[float, str]])
    )
    """Time, and size with checksum, of each packet by its stream."""


def listened(path: Path) -> Heard:
    """Reads the list of FFmpeg's muxer framecrc, whose first stream is the video."""
    heard, bases = Heard(), dict[int, Fraction]()
    for line in path.read_text().splitlines():
        if found := re.match(r"#tb (\d+): (\d+)/(\d+)", line):
            bases[int(found[1])] = Fraction(int(found[2]), int(found[3]))
        if line.startswith("#"):
            continue
        stream, _, pts, _, size, crc, *_ = (part.strip() for part in line.split(","))
        time = float(int(pts) * bases[int(stream)])
        if stream == "0":
            heard.frames.append(time)
        else:
            heard.sounds[int(stream)].append((time, f"{size} {crc}"))
    return heard


def judged(source: Path, target: Path, folder: Path) -> tuple[Heard, Heard, list[float], list[str]]:
    """Both files as the command hears them, each frame's PSNR, and its words about both."""
    near = "format=gbrp,crop=SIZE:0:0,scale=iw/4:ih/4:flags=area"
    graph = (
        f"[0:v:0]split[s][s1];[1:v:0]split[o][o1];[s1]settb=1/1000,setpts=N,{near}[a];"
        f"[o1]settb=1/1000,setpts=N[o2];[o2]{near}[b];[a][b]psnr=f=psnr.txt[p]"
    )
    words = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", source, "-i", target],
        check=False, capture_output=True, text=True,
    ).stderr.split("Input #1")  # fmt: skip
    size = re.search(r"Video:.*?, (\d+)x(\d+)\b", words[0])
    assert size is not None, words[0]
    graph = graph.replace("SIZE", f"{size[1]}:{size[2]}")
    lists = [
        argument
        for number, name in enumerate(("source.txt", "target.txt"))
        for argument in ("-map", f"[{'so'[number]}]", "-map", f"{number}:a?", "-c:a", "copy",
                         "-fps_mode", "passthrough", "-enc_time_base", "filter", "-f", "framecrc", name)
    ]  # fmt: skip
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", "-copyts",
               "-noautorotate", "-i", source, "-noautorotate", "-i", target,
               "-filter_complex", graph, *lists, "-map", "[p]", "-f", "null", "-"]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    stats = (folder / "psnr.txt").read_text()
    shown = [float(value) for value in re.findall(r"psnr_avg:(\S+)", stats)]
    return listened(folder / "source.txt"), listened(folder / "target.txt"), shown, words


def drawn(number: int) -> tuple[Clip, bool]:
    """The clip of that number, and whether it is made lossless."""
    rng = random.Random(70_000 + number)
    while (found := draw(rng, {})) is None:
        pass
    return Clip(**found), rng.random() < 0.5


def check(number: int, folder: Path) -> None:
    """One clip, made, run and judged."""
    clip, lossless = drawn(number)
    suffix, codec, _ = ("mkv", "ffv1", ()) if lossless else TARGETS[clip.target]
    source, target = folder / f"in{number}.{clip.home}", folder / f"out{number}.{suffix}"
    filming.make(source, clip)
    options = () if lossless else ("--crf", 12, *FAST.get(codec, ()))
    done = velatura("run", source, target, "-m", "identity", "--codec", codec, *options)
    said = " ".join(done.stderr.split())
    told = f"{number}: {clip} ({codec}): {said}"
    if done.returncode:
        # Refused in words, where the command cannot read it either, and nothing is there.
        assert "velatura: " in said, told
        assert not target.exists(), told
        assert not decodes(source), told
        return
    exact = lossless and "becomes" not in said and "padded" not in said
    judge(clip, source, target, said, told, exact=exact)
    target.unlink()


def decodes(path: Path) -> bool:
    """Whether the command reads a file to its end."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "null", "-"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def judge(clip: Clip, source: Path, target: Path, said: str, told: str, *, exact: bool) -> None:
    """Fails where the target is not the source, but for what was said."""
    before, after, shown, words = judged(source, target, source.parent)
    coarse = target.suffix == ".ts" or clip.home in (*GRID, "flv")
    verdict(clip, before, after, said, told, coarse=coarse)
    lost = len(re.findall(r"\(subtitle, \w+\) is left out", said))
    assert words[1].count("Subtitle:") + lost == words[0].count("Subtitle:"), told
    if "it lies" not in said:
        turned = [re.findall(r"rotation of (\S+)", about) for about in words]
        assert turned[0] == turned[1], told
    if "opacity" not in said and not clip.pixels.startswith(("yuva", "rgba", "argb")):
        assert len(shown) == len(before.frames), told
        assert min(shown) >= (EXACT if exact else LIKE), f"{min(shown)} dB: {told}"


def verdict(clip: Clip, before: Heard, after: Heard, said: str, told: str, *, coarse: bool) -> None:
    """Frames at their times, and each track of sound where it was against them."""
    assert len(after.frames) == len(before.frames), told
    if clip.home not in GRID:
        apart = [
            abs((b - after.frames[0]) - (a - before.frames[0]))
            for a, b in zip(before.frames, after.frames, strict=True)
        ]
        assert max(apart) <= ROUNDED, f"{max(apart)} s: {told}"
    assert len(after.sounds) == len(before.sounds), told
    anew = "(audio" in said and "is converted" in said
    for number, packets in before.sounds.items():
        given = after.sounds[number]
        slack = COARSE if coarse or anew else 0.0125
        late = (given[0][0] - after.frames[0]) - (packets[0][0] - before.frames[0])
        assert abs(late) <= slack, f"sound {number} is {late:+.3f} s off: {told}"
        ends = (given[-1][0] - given[0][0]) - (packets[-1][0] - packets[0][0])
        assert abs(ends) <= (0.2 if anew else 0.1), f"sound {number} is {ends:+.3f} s longer: {told}"
        # AAC has a header before each packet in a transport stream.
        if not anew and not coarse and clip.home != "ts" and len(given) == len(packets):
            assert [body for _, body in given] == [body for _, body in packets], told


BLOCKS = [pytest.param(n, marks=() if n < QUICK else pytest.mark.soak) for n in range(COUNT // BLOCK)]


@pytest.mark.parametrize("block", BLOCKS)
def test_none_is_wrong_and_called_good(block: int, tmp_path: Path) -> None:
    for number in range(BLOCK * block, BLOCK * (block + 1)):
        check(number, tmp_path)


WRONG = {
    "mirrored": ("-vf", "hflip"),
    "negative": ("-vf", "negate"),
    "another range": ("-vf", "scale=in_range=full:out_range=limited,setparams=range=limited"),
    "a frame is missing": ("-vf", "select='not(eq(n,5))'", "-fps_mode", "passthrough"),
    "two are exchanged": ("-vf", "shuffleframes=1 0"),
    "it stands": ("-vf", "loop=loop=6:size=1:start=6,trim=end_frame=14"),
    "it is faster": ("-vf", "settb=1/1000,setpts=1.5*PTS", "-fps_mode", "passthrough"),
    "the sound is late": ("-af", "adelay=200:all=1", "-c:a", "pcm_s16le"),
    "there is no sound": ("-an",),
    "it is turned": ("-vf", "transpose=1,scale=64:48"),
}
"""Arguments of the command that make of a good copy a wrong one."""


@pytest.mark.parametrize("how", WRONG)
def test_the_judge_finds_what_is_wrong(how: str, tmp_path: Path) -> None:
    clip = Clip(codec="h264", home="mkv", pixels="yuv420p", size="64x48", rate="25", rotation=0,
                shape="square", colour="bt709", full=False, sound="pcm", sync="even", words="none",
                target="h264.mkv")  # fmt: skip
    source = filming.make(tmp_path / "in.mkv", clip)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", source, "-map", "0",
               "-c:v", "ffv1", "-c:a", "copy"]  # fmt: skip
    good, wrong = tmp_path / "good.mkv", tmp_path / "wrong.mkv"
    subprocess.run([*command, good], check=True)
    judge(clip, source, good, "", "good", exact=True)
    subprocess.run([*command, *WRONG[how], wrong], check=True)
    with pytest.raises(AssertionError):
        judge(clip, source, wrong, "", "wrong", exact=True)


@pytest.mark.parametrize("number", [115, 314])
def test_h264_in_avi_begins_when_it_does(number: int, tmp_path: Path) -> None:
    """FFmpeg guesses times of display from the level there, here two frames late."""
    check(number, tmp_path)
