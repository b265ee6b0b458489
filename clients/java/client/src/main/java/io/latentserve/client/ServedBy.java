// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/**
 * Model version that served a call, and its execution provider.
 *
 * @param name the model's name
 * @param version the model's version
 * @param digest SHA-256 of the manifest, which identifies the weights
 * @param provider ONNX Runtime execution provider, for example {@code CPUExecutionProvider}
 */
public record ServedBy(String name, int version, String digest, String provider) {
  static ServedBy from(io.latentserve.v1.ServedBy message) {
    return new ServedBy(
        message.getName(), message.getVersion(), message.getDigest(), message.getProvider());
  }
}
