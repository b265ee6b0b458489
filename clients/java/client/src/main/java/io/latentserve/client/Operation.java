// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/** Something that a model can do. */
public enum Operation {
  /** Images to latents. */
  ENCODE,
  /** Latents to images. */
  DECODE,
  /** Images to images. */
  RECONSTRUCT,
  /** Noisy images to clean ones. */
  DENOISE,
  /** Draws images. */
  SAMPLE,
  /** Something that a newer server tells of. */
  UNKNOWN;

  static Operation from(io.latentserve.v1.Operation message) {
    return switch (message) {
      case OPERATION_ENCODE -> ENCODE;
      case OPERATION_DECODE -> DECODE;
      case OPERATION_RECONSTRUCT -> RECONSTRUCT;
      case OPERATION_DENOISE -> DENOISE;
      case OPERATION_SAMPLE -> SAMPLE;
      case OPERATION_UNSPECIFIED, UNRECOGNIZED -> UNKNOWN;
    };
  }
}
