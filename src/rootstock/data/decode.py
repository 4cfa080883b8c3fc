"""From an image's bytes to RGB pixels, the one door: simplejpeg for JPEG, Pillow for what it cannot read.

Policy, the same for every back-end: EXIF orientation is applied; CMYK and grey become RGB; transparency is laid on
white; 16-bit, animated and oversized images are refused with a reason. The format is told from the bytes, not the name.
"""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # our own cap is checked before any pixel is decoded; Pillow's only warns

MIN_SIDE = 1
MAX_ASPECT = 100  # long side / short side: resized to a short side, a sliver of a pixel would fill the memory
# what Pillow's readers raise for broken bytes
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
ORIENTATION = 0x0112  # of EXIF
UPRIGHT = {  # what makes an image of that orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that is refused; the message is the reason, fit for the rejects table."""


class Decoded(NamedTuple):
    """Pixels and the format they were stored in."""

    image_HWC: np.ndarray  # uint8 (H, W, 3) RGB
    format: str  # jpeg, png or webp


def sniff(data: bytes) -> str:
    """Tell the format from the first bytes.

    Raises:
        ImageError: the bytes are empty or begin like none of JPEG, PNG and WebP.
    """
    if not data:
        raise ImageError("empty file")
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise ImageError("neither JPEG, PNG nor WebP")


def decode(data: bytes, *, backend: str, max_pixels: int) -> Decoded:
    """Decode an image.

    Args:
        data: the file's bytes.
        backend: `simplejpeg` (libjpeg-turbo; Pillow for PNG, WebP, CMYK and rotated JPEG) or `pillow` for everything.
            It is part of the data digest: their pixels differ by a grey level here and there.
        max_pixels: width × height above which the image is refused before it is decoded.

    Raises:
        ImageError: with the reason.
    """
    kind = sniff(data)
    if kind == "jpeg" and backend == "simplejpeg" and not _is_rotated(data):
        image = _decode_simplejpeg(data, max_pixels)
        if image is not None:
            return Decoded(image, kind)
    return Decoded(_decode_pillow(data, kind, max_pixels), kind)


def _is_rotated(data: bytes) -> bool:
    if b"Exif\x00\x00" not in data and b"tiff:Orientation" not in data:  # the second in XMP
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return _orientation(image) in UPRIGHT
    except PILLOW_ERRORS:
        return False  # whether it is an image at all, the decoder will say


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ORIENTATION)
    except PILLOW_ERRORS:
        return None  # broken EXIF is not a broken image: the pixels are read as they lie


def _decode_simplejpeg(data: bytes, max_pixels: int) -> np.ndarray | None:
    """Return the pixels, or None for a colour space that libjpeg-turbo does not turn into RGB."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colorspace in ("CMYK", "YCCK"):
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ImageError:
        raise
    except ValueError as error:
        raise ImageError(f"broken JPEG: {str(error).strip().rstrip('.')}") from None


def _decode_pillow(data: bytes, kind: str, max_pixels: int) -> np.ndarray:
    if kind == "png" and len(data) > 24 and data[24] == 16:
        raise ImageError("16-bit PNG: convert it to 8 bits a channel")
    try:
        with Image.open(io.BytesIO(data), formats=(kind.upper(),)) as image:
            _check_size(image.width, image.height, max_pixels)
            # a JPEG of several frames is a phone's photograph with its preview or depth map behind it
            if kind != "jpeg" and getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"animated {kind} of {image.n_frames} frames")
            image.load()
            rgb = _to_rgb(image)
            turn = UPRIGHT.get(_orientation(image))
            return np.array(rgb if turn is None else rgb.transpose(turn))  # a copy: Pillow's own buffer is read-only
    except ImageError:
        raise
    except PILLOW_ERRORS as error:
        raise ImageError(f"broken {kind.upper()}: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{width}×{height} pixels, more than max_pixels {max_pixels}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width}×{height} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width}×{height} pixels, one side more than {MAX_ASPECT} times the other")


def resize(image_HWC: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) bilinearly with antialiasing, in integer arithmetic (the same on every processor)."""
    if image_HWC.shape[:2] == (height, width):
        return image_HWC
    import torch  # here, not above: readers that never resize start a second sooner

    tensor = torch.from_numpy(np.ascontiguousarray(image_HWC)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        tensor, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def resize_short(image_HWC: np.ndarray, *, short_side: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) so that its shorter side is `short_side` pixels, keeping the aspect ratio."""
    height, width = image_HWC.shape[:2]
    short = min(height, width)
    return resize(
        image_HWC,
        height=max(short_side, round(height * short_side / short)),
        width=max(short_side, round(width * short_side / short)),
    )


def center_crop(image_HWC: np.ndarray, *, size: int) -> np.ndarray:
    """Cut the central `size` × `size` pixels of uint8 (H, W, 3); both sides must be at least `size`."""
    height, width = image_HWC.shape[:2]
    assert min(height, width) >= size, (height, width, size)
    top, left = (height - size) // 2, (width - size) // 2
    return image_HWC[top : top + size, left : left + size]
