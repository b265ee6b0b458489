// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.DecodeResponse;
import io.latentserve.v1.DenoiseResponse;

/**
 * Images, in the order of the request.
 *
 * @param images the images, in the requested format
 * @param servedBy the model version that served the call
 * @param timings durations on the server
 */
public record ImagesResult(Images images, ServedBy servedBy, Timings timings) {
  static ImagesResult from(DecodeResponse reply) {
    return new ImagesResult(
        Images.from(reply.getImages()),
        ServedBy.from(reply.getServedBy()),
        Timings.from(reply.getTimings()));
  }

  static ImagesResult from(DenoiseResponse reply) {
    return new ImagesResult(
        Images.from(reply.getImages()),
        ServedBy.from(reply.getServedBy()),
        Timings.from(reply.getTimings()));
  }
}
