"""Clips as people film them: a fixed camera, a moving one, a screen recording; made of pictures in scikit-image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from framepred.video.panels import font
from framepred.video.write import write_video

FPS, FRAMES, SIZE = 15.0, 300, (240, 320)
"""Frames a second, frames of a clip, and their (height, width)."""


def _picture(name: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Load one of scikit-image's pictures, scaled to (height, width)."""
    import skimage

    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS) if size else image


def _noisy(pictures: list[Image.Image], generator: np.random.Generator, sigma: float = 2.0) -> Tensor:
    """Add the noise of a sensor to pictures → frames uint8 (T, 3, H, W)."""
    frames = np.stack([np.asarray(p, dtype=np.float32) for p in pictures])
    frames += generator.normal(0, sigma, frames.shape).astype(np.float32)
    return torch.from_numpy(frames.round().clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def fixed_camera() -> Tensor:
    """Cars of several colours and speeds pass before a wall, in both directions, at random times."""
    generator = np.random.default_rng(0)
    background = _picture("brick.png", SIZE)
    background.paste(_picture("gravel.png", (100, 320)), (0, 140))
    cars = []
    for lane, direction in ((150, 1), (190, -1)):
        start = 0
        while start < FRAMES:
            colour = tuple(generator.integers(40, 255, 3).tolist())
            cars.append((start, lane, direction, 2.0 + 4.0 * generator.random(), colour))
            start += int(generator.integers(60, 110))
    pictures = []
    for t in range(FRAMES):
        picture = background.copy()
        pen = ImageDraw.Draw(picture)
        for start, lane, direction, speed, colour in cars:
            if t < start:
                continue
            x = -60 + (t - start) * speed if direction > 0 else 320 - (t - start) * speed
            pen.rectangle((x, lane, x + 60, lane + 22), fill=colour)
            pen.rectangle((x + 14, lane - 12, x + 46, lane), fill=(70, 90, 110))
            for wheel in (12, 46):
                pen.ellipse((x + wheel - 7, lane + 15, x + wheel + 7, lane + 29), fill=(20, 20, 20))
        pictures.append(picture)
    return _noisy(pictures, generator)


def moving_camera() -> Tensor:
    """A camera wanders over a large picture and comes close now and then."""
    generator = np.random.default_rng(1)
    picture = _picture("motorcycle_left.png", (900, 1200))
    t = np.arange(FRAMES) / FPS
    a, b, c = generator.random(3) * 6
    x, y = 600 + 260 * np.sin(0.5 * t + a), 450 + 150 * np.sin(0.7 * t + b)
    zoom = 1.0 + 0.25 * np.sin(0.4 * t + c)
    boxes = [(u - 240 * z, v - 180 * z, u + 240 * z, v + 180 * z) for u, v, z in zip(x, y, zoom, strict=True)]
    views = [picture.transform((320, 240), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR) for box in boxes]
    return _noisy(views, generator)


def screen() -> Tensor:
    """A page of lines scrolls in steps while a pointer moves over it and rests."""
    generator = np.random.default_rng(2)
    page = Image.new("RGB", (320, 2400), (250, 250, 250))
    pen = ImageDraw.Draw(page)
    for y in range(0, 2400, 18):
        indent = int(generator.integers(0, 4)) * 16
        words = " ".join("abcdefgh"[: int(n)] for n in generator.integers(2, 8, 5))
        pen.text((12 + indent, y), words, (40, 40, 60) if generator.random() < 0.8 else (190, 60, 40), font=font(13))
    pictures, top, place, goal = [], 0.0, np.array([160.0, 120.0]), np.array([160.0, 120.0])
    aim = 0.0
    for t in range(FRAMES):
        if t % 25 == 0:
            aim = min(aim + 18 * int(generator.integers(1, 4)), 2150)
        if t % 30 == 10:
            goal = generator.random(2) * (300, 220)
        top += (aim - top) * 0.35
        place += (goal - place) * 0.2
        picture = page.crop((0, round(top), 320, round(top) + 240))
        x, y = place
        ImageDraw.Draw(picture).polygon([(x, y), (x, y + 22), (x + 6, y + 16), (x + 15, y + 16)], fill=(0, 0, 0))
        pictures.append(picture)
    return _noisy(pictures, generator, 0.0)


MADE = {"fixed-camera": fixed_camera, "moving-camera": moving_camera, "screen": screen}


def halves(name: str, frames: Tensor, fps: float, folder: Path) -> tuple[Path, Path]:
    """Write a clip's first half to train on and its second half to be measured on."""
    count = len(frames) // 2
    first, second = folder / name / "videos" / f"{name}.mp4", folder / name / "held-out" / f"{name}-2.mp4"
    for file, part in ((first, frames[:count]), (second, frames[count:])):
        write_video(file, part, fps)
    return first, second
