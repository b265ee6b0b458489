// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonObject;
import java.util.List;

/** What a good call gave: parts, or what ModelService and health say, as the cases spell it. */
record Answer(List<Part> parts, JsonObject said) {
  static Answer of(List<Part> parts) {
    return new Answer(parts, null);
  }

  static Answer of(Part part) {
    return of(List.of(part));
  }

  static Answer of(JsonObject said) {
    return new Answer(List.of(), said);
  }
}
