// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.ReconstructResponse;
import java.util.List;

/**
 * Reconstructions, in the order of the images.
 *
 * @param images the reconstructions, in the requested format
 * @param squaredError of each image, summed over channels and pixels of images in [0, 1]
 * @param servedBy the model version that served the call
 * @param timings durations on the server
 */
public record ReconstructResult(
    Images images, List<Float> squaredError, ServedBy servedBy, Timings timings) {
  static ReconstructResult from(ReconstructResponse reply) {
    return new ReconstructResult(
        Images.from(reply.getImages()),
        List.copyOf(reply.getSquaredErrorList()),
        ServedBy.from(reply.getServedBy()),
        Timings.from(reply.getTimings()));
  }
}
