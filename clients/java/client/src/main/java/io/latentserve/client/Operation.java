// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/** Operation of a model. */
public enum Operation {
  /** Images to latents. */
  ENCODE,
  /** Latents to images. */
  DECODE,
  /** Images to images. */
  RECONSTRUCT,
  /** Noisy images to clean ones. */
  DENOISE,
  /** Images from the prior. */
  SAMPLE,
  /** A value of a newer server. */
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
