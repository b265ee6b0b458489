// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.ImageFormat;

/** Format of the images in a reply. */
public enum Format {
  /** Floats in [0, 1]; the default. */
  FLOAT32(ImageFormat.IMAGE_FORMAT_FLOAT32),
  /** The bits of IEEE 754 binary16, in [0, 1]. */
  FLOAT16(ImageFormat.IMAGE_FORMAT_FLOAT16),
  /** Levels from 0 to 255. */
  UINT8(ImageFormat.IMAGE_FORMAT_UINT8),
  /** One PNG file per image. */
  PNG(ImageFormat.IMAGE_FORMAT_PNG);

  private final ImageFormat message;

  Format(ImageFormat message) {
    this.message = message;
  }

  ImageFormat toMessage() {
    return message;
  }
}
