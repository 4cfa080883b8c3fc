"""From an image's bytes to RGB pixels, the one door: simplejpeg for JPEG, Pillow for what it cannot read.

Policy, the same for every back-end: EXIF orientation is applied; CMYK and grey become RGB; transparency is laid on
white; 16-bit, animated and oversized images are refused with a reason. The format is told from the bytes, not the name.
"""

import io
import struct
import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # our own cap is checked before any pixel is decoded; Pillow's only warns

MIN_SIDE = 1
MAX_ASPECT = 100  # long side / short side: resized to a short side, a sliver of a pixel would fill the memory
# Bounds on what decoding may cost, whatever max_pixels allows: memory at its peak, by reader and pixel, and the passes
# of a progressive JPEG over all of its pixels (cameras and optimisers write 10 to 20 of them).
MAX_DECODE_BYTES = 480 << 20
BYTES_PER_PIXEL = {"simplejpeg": 3, "jpeg": 8, "png": 8, "webp": 17}
COEFFICIENT_BYTES = 6  # a pixel: what a progressive JPEG adds
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 10**9  # scans × pixels
STRIP_PIXELS = 1 << 20  # turned into RGB at a time
MAX_SEGMENTS = 1000  # of a JPEG's head that are walked one by one; real files have 10 to 50
MAX_SCRATCH_BYTES = 32 << 20  # kept for the next image
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
CONTEXT_ROWS = 16  # below those that are needed: colour at half the resolution is mixed from a row's neighbours
SCAN = b"\xff\xda"  # begins a JPEG's scan
UPRIGHT = {  # what makes an image_HWC of that orientation upright
    2: lambda image_HWC: image_HWC[:, ::-1],
    3: lambda image_HWC: image_HWC[::-1, ::-1],
    4: lambda image_HWC: image_HWC[::-1],
    5: lambda image_HWC: image_HWC.swapaxes(0, 1),
    6: lambda image_HWC: image_HWC[::-1].swapaxes(0, 1),
    7: lambda image_HWC: image_HWC[::-1, ::-1].swapaxes(0, 1),
    8: lambda image_HWC: image_HWC[:, ::-1].swapaxes(0, 1),
}


class ImageError(ValueError):
    """An image that is refused; the message is the reason, fit for the rejects table."""


class Decoded(NamedTuple):
    """Pixels and the format they were stored in."""

    image_HWC: np.ndarray  # uint8 (H, W, 3) RGB
    format: str  # jpeg, png or webp


class Scratch(threading.local):
    """Memory that a thread decodes into again and again: fresh pages for every image cost as much as hashing it."""

    def __init__(self):
        self._memory = np.empty(0, np.uint8)

    def take(self, num_bytes: int) -> np.ndarray | None:
        """Return at least `num_bytes` bytes, the same as last time where they suffice; None for more than is kept."""
        if num_bytes > MAX_SCRATCH_BYTES:
            return None
        if num_bytes > self._memory.size:
            self._memory = np.empty(num_bytes + num_bytes // 2, np.uint8)
        return self._memory


class _Head(NamedTuple):
    """What a JPEG says before its first scan."""

    num_bytes: int
    is_one_scan: bool  # the first scan has all that there is; libjpeg-turbo refuses a second one
    height_at: int  # where a sequential JPEG says its height


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


def decode(
    data: bytes,
    *,
    backend: str,
    max_pixels: int,
    scratch: Scratch | None = None,
    num_rows: Callable[[int, int], int] | None = None,
) -> Decoded:
    """Decode an image.

    Args:
        data: the file's bytes.
        backend: `simplejpeg` (libjpeg-turbo; Pillow for PNG, WebP, CMYK and rotated JPEG) or `pillow` for everything.
            It is part of the data digest: their pixels differ by a grey level here and there.
        max_pixels: width × height above which the image is refused before it is decoded.
        scratch: memory to decode into; the pixels are then valid until this thread decodes into it again.
        num_rows: tells from height and width how many rows from the top are needed. Where it can be, decoding ends
            soon after them, and the image has fewer rows than the whole. Only for bytes that are known to be good:
            damage that the whole image's decoding would show may pass.

    Raises:
        ImageError: with the reason.
    """
    kind = sniff(data)
    if kind == "jpeg" and backend == "simplejpeg":
        head = _head(data)
        if not _is_rotated(data, head):
            image = _decode_simplejpeg(data, head, max_pixels, scratch, num_rows)
            if image is not None:
                return Decoded(image, kind)
    image = _decode_pillow(data, kind, max_pixels)
    if kind == "jpeg" and backend == "simplejpeg":
        _check_whole(data)
    return Decoded(image, kind)


def _head(data: bytes) -> _Head | None:
    """Walk the segments before the first scan; None when they are no plain chain: then only searching all bytes tells.

    Source: ITU-T T.81, annex B.
    """
    at, num_components, height_at = 2, 0, 0
    try:
        for _ in range(MAX_SEGMENTS):
            prefix, marker, num_bytes = struct.unpack_from(">BBH", data, at)
            if prefix != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9 or marker == 0xFF:
                return None
            if marker == 0xDA:
                return _Head(at, is_one_scan=data[at + 4] == num_components, height_at=height_at)
            if marker in (0xC0, 0xC1):  # sequential
                num_components, height_at = data[at + 9], at + 5
            at += 2 + num_bytes
    except (struct.error, IndexError):
        pass  # cut short: the decoder will say so
    return None


def _is_rotated(data: bytes, head: _Head | None) -> bool:
    end = len(data) if head is None else head.num_bytes
    if data.find(b"Exif\x00\x00", 0, end) < 0 and data.find(b"tiff:Orientation", 0, end) < 0:  # the second in XMP
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


def _decode_simplejpeg(
    data: bytes,
    head: _Head | None,
    max_pixels: int,
    scratch: Scratch | None,
    num_rows: Callable[[int, int], int] | None,
) -> np.ndarray | None:
    """Return the pixels, or None for a colour space that libjpeg-turbo does not turn into RGB."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colorspace in ("CMYK", "YCCK"):
            return None
        _check_cost(width, height, "simplejpeg", num_scans=_num_scans(data, head))
        is_whole = True
        if num_rows is not None and head is not None and head.is_one_scan:
            needed = num_rows(height, width) + CONTEXT_ROWS
            if needed < height:
                data, height, is_whole = _shortened(data, head, needed), needed, False
        buffer = None if scratch is None else scratch.take(3 * width * height)
        return simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=buffer, strict=is_whole)
    except ImageError:
        raise
    except ValueError as error:
        raise ImageError(f"broken JPEG: {str(error).strip().rstrip('.')}") from None


def _shortened(data: bytes, head: _Head, height: int) -> bytearray:
    """The same JPEG, said to be less high: the decoder ends there and only warns that there is more."""
    changed = bytearray(data)
    changed[head.height_at : head.height_at + 2] = height.to_bytes(2, "big")
    return changed


def _check_whole(data: bytes) -> None:
    """Pillow makes pixels up where bytes are missing or damaged; what it reads for simplejpeg must be as whole."""
    try:
        colorspace = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(data, colorspace="CMYK" if colorspace in ("CMYK", "YCCK") else "GRAY")
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
            num_scans = _num_scans(data, _head(data)) if kind == "jpeg" else 1
            _check_cost(image.width, image.height, kind, num_scans=num_scans)
            image.load()
            turn = UPRIGHT.get(_orientation(image))
            image_HWC = _to_rgb(image)
    except ImageError:
        raise
    except PILLOW_ERRORS as error:
        raise ImageError(f"broken {kind.upper()}: {error}") from None
    return image_HWC if turn is None else np.ascontiguousarray(turn(image_HWC))


def _to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels, a strip at a time: whole, each of Pillow's steps would hold a copy of the image."""
    rgb_HWC = np.empty((image.height, image.width, 3), np.uint8)
    num_rows = max(1, STRIP_PIXELS // image.width)
    is_transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    for top in range(0, image.height, num_rows):
        strip = image.crop((0, top, image.width, min(top + num_rows, image.height)))
        if is_transparent:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        rgb_HWC[top : top + num_rows] = np.asarray(strip.convert("RGB"))
    return rgb_HWC


def _check_cost(width: int, height: int, reader: str, *, num_scans: int) -> None:
    """Refuse what is small on the disk and within max_pixels, yet takes minutes or gigabytes."""
    if num_scans > 1 and (num_scans > MAX_SCANS or num_scans * width * height > MAX_SCANNED_PIXELS):
        raise ImageError(f"{width}×{height} pixels in {num_scans} scans")
    bytes_per_pixel = BYTES_PER_PIXEL[reader] + (COEFFICIENT_BYTES if num_scans > 1 else 0)
    if width * height * bytes_per_pixel > MAX_DECODE_BYTES:
        raise ImageError(
            f"{width}×{height} pixels: decoding would take {width * height * bytes_per_pixel >> 20} MiB, "
            f"more than {MAX_DECODE_BYTES >> 20}"
        )


def _num_scans(data: bytes, head: _Head | None) -> int:
    """How many scans a JPEG may have: one where the head says so, else no more than there are marks that begin one."""
    return 1 if head is not None and head.is_one_scan else data.count(SCAN)


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

    if image_HWC.strides[0] < 0 or image_HWC.strides[1:] != (3, 1):  # mirrored; a crop needs no copy
        image_HWC = image_HWC.copy()
    # this way round the result has its channels innermost too
    tensor_NCHW = torch.from_numpy(image_HWC).unsqueeze(0).permute(0, 3, 1, 2)
    resized_NCHW = torch.nn.functional.interpolate(
        tensor_NCHW, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(resized_NCHW.permute(0, 2, 3, 1)[0].numpy())


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
