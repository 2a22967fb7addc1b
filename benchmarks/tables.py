"""The tables of the documents, each made from files in results/: no figure is typed by hand.

`python -m benchmarks tables` writes them into the pages; a test fails where a page says something else
than the results.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from .pages import NOT_MET, Result, agreement, bullets, measured, met, percent, rows, span

RESULTS = Path(__file__).with_name("results")


def table(name: str) -> str:
    """Returns a table, or list, in Markdown, with a line on where and how its figures were measured.

    Raises KeyError for an unknown name.
    """
    maker, *results = TABLES[name]
    given = {result: json.loads((RESULTS / f"{result}.json").read_text()) for result in results}
    return f"{maker(*given.values())}\n\n{measured(given)}\n"


# ---- files ----------------------------------------------------------------------------------------


def pipeline(given: Result) -> str:
    kinds = {
        "upscale": "upscale to 1280x720",
        "style": "restyle",
        "style_upscale": "restyle, then upscale to 1280x720",
    }
    lines: list[list[str]] = []
    for key, name in kinds.items():
        row = given[key]
        models = ", ".join(f"`{m['name']}` in {m['precision'].upper()}" for m in row["models"])
        fps, memory = span(row["fps"]), f"{row['peak_memory_mib']['median']:.0f} MiB"
        lines.append([name, models, fps, memory])
    return rows(["file to file, 640x360 in", "models", "frames per second", "peak memory"], lines)


def overlap(given: Result) -> str:
    found = given["overlap"]["upscale"]
    first = max(row["median"] for row in given["startup"]["first_frame_seconds"].values())
    return bullets(
        [
            f"A clip ten times as long takes {given['memory']['growth']:.2f} times the memory of the "
            "short one.",
            f"`velatura --help` answers in {given['startup']['help_seconds']['median']:.2f} s; a whole "
            f"run of one frame takes {first:.1f} s, process start included.",
            f"Upscaling takes {found['wall_over_slowest_part']:.1f} times the slowest of its parts "
            "alone (reading, inference, encoding), because each large part alone uses both cores "
            "already.",
            f"The whole process takes {found['cores_busy']:.2f} CPU seconds in each second of the "
            "pump's wall time. That is more than there are cores, since it also counts loading and "
            "compiling, which the wall time does not.",
        ]
    )


def identity_cost(given: Result) -> str:
    lines: list[list[str]] = []
    for row in given["cost"].values():
        found = row["wall_over_pyav"]
        with_journal, without = (span(found[k], 2) for k in ("velatura", "velatura --no-journal"))
        lines.append([f"{row['size']}, {row['seconds_of_film']:.0f} s", with_journal, without])
    return rows(["clip", "as a run does it", "without a journal"], lines)


def identity_pixels(given: Result) -> str:
    kinds: dict[str, list[Result]] = {}
    for row in given["round_trip"]:
        rgb = "largest_rgb_difference_of_255" in row
        kind = "RGB" if rgb else "grey" if "largest_chroma_difference" not in row else "YUV"
        made = f", which becomes YUV of {8 if row['bits'] == 8 else 16}" if rgb else ""
        name = f"{kind} in {row['bits']} bits{made}" if rgb else kind
        kinds.setdefault(name, []).append(row)
    lines: list[list[str]] = []
    for name, found in kinds.items():
        bits = ", ".join(str(b) for b in sorted({row["bits"] for row in found}))
        shapes = {row["pixels"].removeprefix("yuv").partition("p")[0] for row in found}
        if name == "YUV":
            planes = [":".join(shape) for shape in sorted(shapes, reverse=True)]
            name = f"YUV {', '.join(planes)} in {bits} bits"
        elif name == "grey":
            name = f"grey in {bits} bits"
        ranges = " and ".join(sorted({row["range"] for row in found}, reverse=True))
        if "largest_rgb_difference_of_255" in found[0]:
            largest = max(row["largest_rgb_difference_of_255"] for row in found)
            lines.append([name, ranges, f"{largest:.2g} of 255"])
        else:
            luma = max(row["largest_luma_difference"] for row in found)
            chroma = max(row.get("largest_chroma_difference", 0) for row in found)
            lines.append([name, ranges, f"{max(luma, chroma)}"])
    return rows(["pixels", "range", "largest difference in any sample"], lines)


# ---- engines --------------------------------------------------------------------------------------


def engines_of(model: str) -> Callable[[Result], str]:
    def made(given: Result) -> str:
        found = given[model]
        chosen = f"{found['auto']['backend']} {found['auto']['precision']}"
        lines: list[list[str]] = []
        for name, row in found["rows"].items():
            lines.append(
                [
                    f"`{name}`" + (", which `auto` takes" if name == chosen else ""),
                    span(row["fps"]),
                    f"{row['latency_ms']['median']:.1f} ms",
                    f"{row['speedup_over_ort_fp32']['median']:.1f}",
                    percent(row["share_of_peak"]["median"]),
                    agreement(row["parity_db"]),
                ]
            )
        head = ["backend", "frames per second", "latency", "times ONNX Runtime in FP32"]
        return rows([*head, "of that precision's peak", "agrees with FP32"], lines)

    return made


def engine_profile(given: Result) -> str:
    found = given["starry-night"]
    peak = found["peak"]["matrix"]
    profile = found["profile"]
    kinds = profile["milliseconds"]
    moving = profile["total_ms"] - sum(ms for kind, ms in kinds.items() if "Convolution" in kind)
    shares = ", ".join(
        f"{kind.removeprefix('Convolution ')} {percent(row['share_of_peak_in_that_precision'])}"
        for kind, row in profile["convolutions"].items()
    )
    opened = ", ".join(
        f"`{name}` in {given[name]['open_with_warm_cache_ms']['median']:.0f} ms"
        for name in ("starry-night", "upscale-2x")
    )
    return bullets(
        [
            f"The machine's own peak, in a chain of large matrix products in the same run: "
            f"{peak['int8'] / 1e12:.1f} tera-operations a second in INT8, {peak['bf16'] / 1e12:.1f} in "
            f"BF16, {peak['fp32'] / 1e12:.2f} in FP32.",
            f"Where a frame of `starry-night` goes in {profile['precision'].upper()}: of "
            f"{profile['total_ms']:.1f} ms, {moving:.1f} move and convert data (pixel shuffles, "
            f"reorders, padding, sums). The convolutions reach these parts of their precision's peak: "
            f"{shares}.",
            f"With a warm cache an engine is open and compiled for its size, in a new process and with "
            f"the libraries' import: {opened}.",
        ]
    )


# ---- live -----------------------------------------------------------------------------------------


def live(given: Result) -> str:
    def steady(key: str) -> tuple[str, str]:
        row = given[key]
        latency, low, promised = row["latency"], row["low_1_percent_fps"], row["promised"]
        full = row["frames_on_rungs"]["full"] == row["captured"]
        holds = (
            row["dropped"] <= promised["dropped"]
            and latency["p99_ms"] <= promised["p99_ms"]
            and low >= promised["low_1_percent_fps"]
        )
        nice = " (run with priority over the machine's other work)" if "-" in row["scheduling"] else ""
        text = (
            f"{row['dropped']} of {row['captured']:,} frames dropped, p99 {latency['p99_ms']:.1f} ms, "
            f"1 % low {low:.1f} fps, {'never' if full else 'at times'} below full quality{nice}"
        )
        wanted = (
            f"{promised['dropped']} dropped, {promised['p99_ms']} ms, "
            f"{promised['low_1_percent_fps']} fps"
        )
        return text, met(holds, wanted)

    def minutes(key: str) -> str:
        row = given[key]
        length = row["captured"] / row["offered_fps"] / 60
        return f"{row['offered_fps']} fps, {length:.0f} minute{'s' if length > 1 else ''}"

    pressed, hog, two = given["pressed"], given["beside_a_hog"], given["two_at_once"].values()
    off = given["off"]
    names = list(off)
    wanted = hog["promised"]
    dropped = sum(row["dropped"] for row in two)
    p99 = " and ".join(f"{row['latency']['p99_ms']:.1f}" for row in two)
    sizes_kept = f"{off[names[1]]['median_us'] / 1e3:.1f} ms for `{names[1]}`, whose size must be kept"
    lines = [
        [minutes("steady_for_5_minutes"), *steady("steady_for_5_minutes")],
        [minutes("steady"), *steady("steady")],
        [
            f"{pressed['offered_fps']} fps",
            f"`{pressed['rung_at_the_end']}` after {pressed['steps'][0]['at']:.2f} s and to the end; "
            f"p99 {pressed['latency']['p99_ms']:.1f} ms, {pressed['p99_after_3_s_ms']:.1f} without the "
            f"first 3 s; {pressed['late']} of {pressed['captured']:,} frames "
            "late",
            met(
                pressed["held_after_s"] <= pressed["promised"]["held_after_s"],
                f"held within {pressed['promised']['held_after_s']} s",
            ),
        ],
        [
            f"{hog['offered_fps']} fps, both cores taken by another program for "
            f"{hog['hog_s'][1] - hog['hog_s'][0]:.0f} s",
            f"under the deadline again after {hog['held_after_s']:.1f} s, full quality "
            f"{hog['quality_back_after_s']:.1f} s after its end; {hog['dropped']} of "
            f"{hog['captured']:,} frames dropped",
            met(
                hog["held_after_s"] <= wanted["held_after_s"]
                and hog["quality_back_after_s"] <= wanted["quality_back_after_s"],
                f"{wanted['held_after_s']} s, {wanted['quality_back_after_s']} s",
            ),
        ],
        [
            "two instances, 30 fps",
            f"{dropped} of {sum(row['captured'] for row in two):,} frames dropped; p99 {p99} ms",
            "",
        ],
        [
            "off",
            f"{off[names[0]]['median_us']:.0f} µs a frame, the same frame; {sizes_kept}",
            met(off[names[0]]["same_frame"], "the same frame"),
        ],
    ]
    return rows(["`starry-night` at 640x360, offered", "outcome", "asked"], lines)


# ---- games ----------------------------------------------------------------------------------------


def games(given: Result) -> str:
    lines: list[list[str]] = []
    for rate in (60, 30):
        found = given[f"pipelined_{rate}_hz"]
        on, asked = found["cost_ms"]["on"], found["asked"]["on_adds_ms"]
        what = f"`pipelined` at {rate} Hz: what it adds to a frame's work"
        for key, part in (("busy_p50", "its median"), ("busy_p95", "its slowest twentieth")):
            holds = on[key]["median"] <= asked
            lines.append([f"{what}, {part}", span(on[key], 2, " ms"), met(holds, f"{asked:g} ms")])
        lines.append(
            ["the same, processor time of the game's thread", span(on["own_p50"], 2, " ms"), ""]
        )
        lines.append(["the call alone", span(on["call_p50"], 2, " ms"), ""])
        a_second = found["pictures"]["fresh"] / found["seconds"]
        behind = found["added_latency"]["frames"]
        lines.append([f"new pictures a second at {rate} Hz", f"{a_second:.1f}", ""])
        lines.append([f"frames behind at {rate} Hz", f"{behind:.1f}", ""])
    sixty, off = given["pipelined_60_hz"], given["off"]
    asked = sixty["asked"]["off_adds_ms"]
    once = off["once_a_frame_ms"]
    cost = sixty["cost_ms"]["off"]
    lines += [
        ["off, at 60 Hz: what it adds to a frame's work", span(cost["busy_p50"], 3, " ms"), ""],
        [
            "off: a call",
            span(once, 3, " ms"),
            met(once["median"] <= asked, f"{asked:g} ms"),
        ],
    ]
    budget = given["inline_30_hz_in_24_ms"]
    shown = budget["pictures"]
    painted = shown["fresh"] + shown["carried"]
    lines.append(
        [
            f"`inline` in {budget['budget_ms']} ms at {budget['rate']} Hz: frames restyled",
            f"{painted} of {sum(shown.values())}, {shown['fresh']} of them made anew",
            "",
        ]
    )
    tight = given["pipelined_60_hz_in_16_ms"]
    shown = tight["pictures"]
    lines.append(
        [
            f"`pipelined` in {tight['budget_ms']} ms at {tight['rate']} Hz: frames restyled",
            f"{shown['fresh'] + shown['carried']} of {sum(shown.values())}",
            "",
        ]
    )
    return rows(["`starry-night` at 640x360", "measured", "asked"], lines)


def vapoursynth(given: Result) -> str:
    lines: list[list[str]] = []
    for name in ("upscale", "style"):
        row = given[name]
        ratio, wanted = row["ratio"], given["wanted"]
        lines.append(
            [
                f"`{row['model']}`",
                f"{row['filter_fps']['median']:.1f}",
                f"{row['run_fps']['median']:.1f}",
                f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})",
                met(ratio["median"] >= wanted, f"{wanted:g}"),
            ]
        )
    heads = ["model", "filter, frames per second", "`velatura run`", "ratio", "asked"]
    return rows(heads, lines)


def shm(given: Result) -> str:
    bound = given["bound_ms"]
    frames = given["identity 1280x720 RGBA"]
    ways = {
        "copied": "copied in and out",
        "view": "copied in, read in place",
        "in place": "drawn and read in place",
    }
    lines: list[list[str]] = []
    for key, name in ways.items():
        row = frames[key]
        holds = row["p50_ms"] <= bound["median"] and row["p99_ms"] <= bound["p99"]
        lines.append(
            [
                f"1280x720 RGBA through the identity, {name}",
                f"{row['p50_ms']:.2f} ms",
                f"{row['p99_ms']:.2f} ms",
                met(holds, f"{bound['median']:g} and {bound['p99']:g} ms"),
            ]
        )
    row = given["identity 1280x720 RGBA with motion and depth"]["view"]
    lines.append(
        ["the same with motion and depth", f"{row['p50_ms']:.2f} ms", f"{row['p99_ms']:.2f} ms", ""]
    )
    row = given["starry-night 640x360 RGBA"]["copied"]
    lines.append(
        [
            "640x360 RGBA through `starry-night`",
            f"{row['p50_ms']:.1f} ms",
            f"{row['p99_ms']:.1f} ms",
            "",
        ]
    )
    return rows(["shared memory, a frame there and back", "median", "p99", "asked"], lines)


def game_stability(given: Result) -> str:
    source = given["rows"]["source"]["ewarp"]
    styles: dict[str, tuple[Result, float]] = {
        given["model"]: (
            given["rows"]["stabilised_0.9"],
            given["moved_perfectly"]["net"]["ewarp_at_0.9_of_gradient_energy"],
        )
    }
    for name, found in given["others"].items():
        floor = found["net_moved_perfectly"]["ewarp_at_0.9_of_gradient_energy"]
        styles[name] = (found["stabilised_0.9"], floor)
    lines = [["asked", "at most 0.33", "at most 1.5", "0.9 to 1.1", ""]]
    for name, (row, floor) in styles.items():
        over_net, energy = row["ewarp_over_net"], row["gradient_energy_over_net"]
        lines.append(
            [
                f"`{name}`",
                met(over_net <= 0.333, f"{over_net:.3f}"),
                met(row["ewarp_over_source"] <= 1.5, f"{row['ewarp_over_source']:.2f}"),
                met(0.9 <= energy <= 1.1, f"{energy:.2f}"),
                f"{floor / source:.2f}",
            ]
        )
    extra = {
        "net_on_every_second_frame": f"`{given['model']}` on every second frame",
        "net_blurred": "a blur of the net's own picture, as a control",
    }
    for key, name in extra.items():
        row = given["rows"][key]
        lines.append(
            [
                name,
                f"{row['ewarp_over_net']:.3f}",
                f"{row['ewarp_over_source']:.2f}",
                f"{row['gradient_energy_over_net']:.2f}",
                "",
            ]
        )
    head = ["at the default `stability` of 0.9", "E_warp over the net's", "over the source's"]
    return rows([*head, "gradient energy over the net's", "floor, over the source's"], lines)


def game_stage(given: Result) -> str:
    cut = given["cut"]["largest_difference_from_net_in_levels"]
    return bullets(
        [
            f"The stage takes {given['stage_median_ms']['0.9']:.1f} ms for a frame of 640x360, on one "
            "core.",
            f"After a cut the first frame differs from the net's own by at most {cut} of 255 levels.",
        ]
    )


# ---- models ---------------------------------------------------------------------------------------


def upscalers(given: Result) -> str:
    lines: list[list[str]] = []
    for name, row in given["models"].items():
        if row["task"] == "upscale":
            full, low = row["fp32"], row["int8"]
            lines.append(
                [
                    f"`{name}`",
                    f"{row['weights']:,}",
                    f"{row['macs_per_pixel']:,}",
                    _training(row),
                    *(f"{full[f'{data}_psnr_y_db']['model']:.2f}" for data in ("set5", "set14")),
                    *(
                        f"{full[f'set14_{measure}']['model']:.4f}"
                        for measure in ("vgg_relu2_2", "flip")
                    ),
                    f"{low['set5_psnr_y_db']:.2f}, {low['set14_psnr_y_db']:.2f}",
                ]
            )
    for name, row in given["published"].items():
        figures = [f"{row[data]:.2f}" for data in ("set5", "set14")]
        lines.append([f"{name}, as published", "", "", "", *figures, "", "", ""])
    head = ["model", "weights", "multiply-adds per input pixel", "trained", "Set5, dB", "Set14, dB"]
    return rows([*head, "VGG distance", "FLIP", "INT8: Set5, Set14, dB"], lines)


def styles(given: Result) -> str:
    lines: list[list[str]] = []
    for name, row in given["models"].items():
        if row["task"] == "style":
            full = row["fp32"]
            ewarp = full["ewarp_pan"]
            lines.append(
                [
                    f"`{name}`",
                    f"{row['weights']:,}",
                    f"{row['macs_per_pixel']:,}",
                    _training(row),
                    f"{full['objective']['model']:.2f} of {full['objective']['input']:.2f}",
                    f"{row['card']['grid_4px']:.2f}",
                    f"{ewarp['model']:.5f} ({ewarp['input']:.5f})",
                    f"{row['int8']['parity_db']:.1f} dB",
                ]
            )
    head = ["model", "weights", "multiply-adds per pixel", "trained", "objective, of the photograph's"]
    grid = "4-pixel grid over the input's"
    return rows([*head, grid, "E_warp on pans (the source's)", "INT8 agrees to"], lines)


def _training(row: Result) -> str:
    """Steps and minutes of a card, without what a list of models has no room for."""
    steps = re.findall(r"([\d,]+) of ([\d,]+) steps", row["training"])
    minutes = sum(int(found) for found in re.findall(r"(\d+) min", row["training"]))
    if not steps or not minutes:
        raise ValueError(f"a card tells its training in other words: {row['training']}")
    (last, whole), *earlier = steps
    after = "".join(f", after {before}" for before, _ in earlier)
    begun = ", begun with another model" if "begun with" in row["training"] else ""
    return f"{last} of {whole} steps{after}; {minutes} min{begun}"


def half(given: Result) -> str:
    lines: list[list[str]] = []
    for name, row in given["models"].items():
        found = row["fp16"]
        worst, db = min(found["parity_db_on_extremes"].items(), key=lambda item: item[1])
        # What `velatura build` asks.
        asked = f"{db:.1f} dB" if db >= 45 else f"{db:.1f} dB, refused below 45"
        lines.append(
            [
                f"`{name}`",
                f"{found['parity_db']:.1f} dB",
                f"{asked} ({worst})",
                f"{found['largest_activation_on_extremes']:.0f}",
            ]
        )
    head = ["model in FP16", "agrees with FP32 on photographs", "on the worst extreme picture"]
    return rows([*head, "largest activation there (half holds 65,504)"], lines)


def peers(given: Result) -> str:
    lines = [
        [
            f"`{name}`",
            f"{row['set5_psnr_y_db']:.2f} dB",
            f"{row['set14_psnr_y_db']:.2f} dB",
            f"{row['macs_per_pixel']:,}",
        ]
        for name, row in given.items()
        if name != "machine"
    ]
    return rows(["network", "Set5", "Set14", "multiply-adds per input pixel"], lines)


def stability(given: Result) -> str:
    with_losses, without = given["stable"], given["control"]
    names = {
        "ewarp_pan": "E_warp, pans (true flow)",
        "ewarp_dis": "E_warp, clips (DIS flow)",
        "flicker_static": "flicker, static scene with sensor noise",
    }
    lines = [
        [
            name,
            f"{with_losses[key]['input']:.5f}",
            f"{with_losses[key]['model']:.5f}",
            f"{without[key]['model']:.5f}",
            f"{given['stable_over_control'][key]:.2f}",
            f"{with_losses[key]['blurred']:.5f}",
        ]
        for key, name in names.items()
    ]
    lines.append(
        [
            "Gram distance to the painting",
            "",
            f"{with_losses['objective_style']['model']:.2f}",
            f"{without['objective_style']['model']:.2f}",
            f"{given['stable_over_control']['objective_style']:.2f}",
            "",
        ]
    )
    return rows(["measure", "source", "with", "without", "with over without", "with, blurred"], lines)


# ---- training -------------------------------------------------------------------------------------


def recipes(given: Result) -> str:
    lines = [
        [
            f"`{name}`",
            row["network"].removeprefix("kind "),
            f"{row['parameters']:,}",
            f"{row['macs_per_pixel']:,}",
            f"{row['steps']:,} of {row['batch']}",
        ]
        for name, row in given["recipes"].items()
    ]
    head = [
        "recipe",
        "network",
        "weights",
        "multiply-adds per input pixel",
        "steps of so many pictures",
    ]
    return rows(head, lines)


def optimisation(given: Result) -> str:
    lines: list[list[str]] = []
    for side in ("256", "512"):
        for key, row in given[side].items():
            if key.startswith("after_"):
                low, high = row["spread"]
                ratio = f"{row['network_over_optimised']:.2f}"
                ratio += f" ({low:.2f} to {high:.2f})" if row["pictures"] > 1 else ""
                faster = f"{row['times_faster']:,}"
                lines.append([f"{side} px", key[6:], str(row["pictures"]), ratio, faster])
    head = ["side", "iterations of L-BFGS", "photographs", "network's objective over its"]
    return rows([*head, "times faster"], lines)


def training(given: Result) -> str:
    lines: list[list[str]] = []
    for name, row in given.items():
        if isinstance(row, dict) and "share" in row:
            low, high = (percent(part) for part in row["share_spread"])
            share = f"{percent(row['share'])} ({low} to {high})"
            lines.append(
                [
                    name,
                    f"{row['images_per_second']:.2f}",
                    f"{row['loss_network_alone']:.2f}",
                    met(row["share"] >= 0.85, share),
                ]
            )
    head = ["recipe", "pictures per second, whole steps", "the loss network's passes alone"]
    return rows([*head, "share (85 % is aimed at)"], lines)


# ---- status ---------------------------------------------------------------------------------------


def aims(
    engines: Result, games: Result, game_stability: Result, quality: Result, peers: Result,
    optimisation: Result, training: Result,
) -> str:  # fmt: skip
    """What was aimed at, beside what came out."""
    share = engines["starry-night"]["rows"]["openvino int8-bf16"]["share_of_peak"]["median"]
    stable = {game_stability["model"]: game_stability["rows"]["stabilised_0.9"]}
    stable |= {name: row["stabilised_0.9"] for name, row in game_stability["others"].items()}
    worst = max(stable, key=lambda name: stable[name]["ewarp_over_source"])
    stage = game_stability["stage_median_ms"]["0.9"]
    slow = games["pipelined_60_hz"]["cost_ms"]["on"]["busy_p95"]["median"]
    steps = [row["share"] for row in training.values() if isinstance(row, dict) and "share" in row]
    objective = optimisation["256"]["after_100"]["network_over_optimised"]
    real_time = {
        name: row["card"]["grid_4px"]
        for name, row in quality["models"].items()
        if row["task"] == "style"
    }
    grid = max(real_time, key=lambda name: real_time[name])
    macs = peers["upscale-2x"]["macs_per_pixel"] / peers["FSRCNN_x2.pb"]["macs_per_pixel"]
    gain = peers["upscale-2x"]["set14_psnr_y_db"] - peers["FSRCNN_x2.pb"]["set14_psnr_y_db"]

    def nearer(scale: int) -> float:
        """By what part the sharp upscaler's VGG distance is below the plain one's."""
        plain, sharp = (
            quality["models"][f"upscale-{scale}x{kind}"]["fp32"]["set14_vgg_relu2_2"]["model"]
            for kind in ("", "-sharp")
        )
        return 1 - sharp / plain

    found = [
        (
            "`starry-night` reaches so much of the machine's INT8 rate",
            "50 %",
            percent(share),
            share >= 0.5,
        ),
        (
            f"E_warp of a stabilised style over the source's, in the worst style (`{worst}`)",
            "at most 1.5",
            f"{stable[worst]['ewarp_over_source']:.2f}",
            stable[worst]["ewarp_over_source"] <= 1.5,
        ),
        ("what stabilising a 640x360 frame takes", "4 ms", f"{stage:.1f} ms", stage <= 4),
        (
            "what `pipelined` adds to the slowest twentieth of a game's frames at 60 Hz",
            "2 ms",
            f"{slow:.1f} ms",
            slow <= 2,
        ),
        *(
            (
                f"VGG distance of `upscale-{scale}x-sharp` below `upscale-{scale}x`'s",
                "25 %",
                percent(nearer(scale)),
                nearer(scale) >= 0.25,
            )
            for scale in (2, 4)
        ),
        (
            f"multiply-adds of `upscale-2x`, {gain:.1f} dB better in Set14, over OpenCV's FSRCNN",
            "50 %",
            percent(macs),
            macs <= 0.5,
        ),
        (
            f"4-pixel grid of a real-time style over the photograph's, in the worst (`{grid}`)",
            "at most 1.5",
            f"{real_time[grid]:.2f}",
            real_time[grid] <= 1.5,
        ),
        (
            "style objective over that of 100 iterations of optimisation, 256 pixels",
            "1.0",
            f"{objective:.2f}",
            objective <= 1,
        ),
        (
            "training's speed over the loss network's passes alone",
            "85 %",
            f"{percent(min(steps))} to {percent(max(steps))}",
            min(steps) >= 0.85,
        ),
    ]
    lines = [[what, asked, got, "met" if holds else NOT_MET] for what, asked, got, holds in found]
    return rows(["aim", "asked", "measured", ""], lines)


TABLES: dict[str, tuple[Callable[..., str], *tuple[str, ...]]] = {
    "pipeline": (pipeline, "pipeline"),
    "overlap": (overlap, "pipeline"),
    "identity-cost": (identity_cost, "identity"),
    "identity-pixels": (identity_pixels, "identity"),
    "engines-style": (engines_of("starry-night"), "engines"),
    "engines-upscaler": (engines_of("upscale-2x"), "engines"),
    "engine-profile": (engine_profile, "engines"),
    "live": (live, "live"),
    "games": (games, "games"),
    "shm": (shm, "shm"),
    "vapoursynth": (vapoursynth, "vapoursynth"),
    "game-stability": (game_stability, "game_stability"),
    "game-stage": (game_stage, "game_stability"),
    "upscalers": (upscalers, "quality"),
    "styles": (styles, "quality"),
    "half": (half, "quality"),
    "peers": (peers, "peers"),
    "stability": (stability, "stability"),
    "recipes": (recipes, "recipes"),
    "optimisation": (optimisation, "optimisation"),
    "training": (training, "training"),
    "aims": (
        aims, "engines", "games", "game_stability", "quality", "peers", "optimisation", "training",
    ),
}  # fmt: skip
"""Name in a marker -> what makes it, and from which files of results/."""
