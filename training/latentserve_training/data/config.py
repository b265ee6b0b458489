"""Configuration of the images: limits, sizes, channels and splits."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The fields of the ``[data]`` table."""

    validation_fraction: float = 0.05  # of the training images, held out to select the best epoch
    max_train_images: int = 0  # maximum number to read; 0 means all
    max_test_images: int = 0
    # Side of a square, or [height, width]: images are scaled with antialiasing until they cover
    # it, and the overhang is cropped equally on both sides. 0: images are not resized.
    image_size: int | tuple[int, ...] = 0
    channels: int = 0  # 1 converts all images to grey, 3 to RGB; 0 does not convert them
    test_fraction: float = 0.1  # of all images, held out for a data set without test images

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError("validation_fraction must lie between 0 and 1")
        if self.max_train_images < 0 or self.max_test_images < 0:
            raise ValueError("max_train_images and max_test_images must be 0 (all) or more")
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * 2
        if self.image_size != 0 and (len(sides) != 2 or min(sides) < 1):
            raise ValueError("image_size must be 0 (as they are), a side, or [height, width]")
        if self.channels not in (0, 1, 3):
            raise ValueError("channels must be 0 (as they are), 1 (grey) or 3 (RGB)")
        if not 0 < self.test_fraction < 1:
            raise ValueError("test_fraction must lie between 0 and 1")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width after resizing; None if images are not resized."""
        if isinstance(self.image_size, tuple):
            height, width = self.image_size
            return height, width
        return (self.image_size, self.image_size) if self.image_size else None
