// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonObject;
import java.util.List;

/** Result of a call: parts of GenerativeService, or the JSON value of another service. */
record CallResult(List<Part> parts, JsonObject value) {
  static CallResult of(List<Part> parts) {
    return new CallResult(parts, null);
  }

  static CallResult of(Part part) {
    return of(List.of(part));
  }

  static CallResult of(JsonObject value) {
    return new CallResult(List.of(), value);
  }
}
