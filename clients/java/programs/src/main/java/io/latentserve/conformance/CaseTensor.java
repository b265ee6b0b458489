// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** Tensor of a request, or an expected tensor with its tolerance. */
record CaseTensor(JsonObject json) {
  CaseTensor {
    KnownFields.check(json, Set.of("dtype", "shape", "data", "repeat", "atol", "rtol"));
  }

  String dtype() {
    return json.get("dtype").getAsString();
  }

  List<Long> shape() {
    List<Long> shape = new ArrayList<>();
    for (JsonElement n : json.getAsJsonArray("shape")) {
      shape.add(n.getAsLong());
    }
    return shape;
  }

  boolean hasData() {
    return json.has("data");
  }

  JsonObject data() {
    return json.getAsJsonObject("data");
  }

  int repeat() {
    return json.has("repeat") ? json.get("repeat").getAsInt() : 1;
  }

  double atol() {
    return json.has("atol") ? json.get("atol").getAsDouble() : 0;
  }

  double rtol() {
    return json.has("rtol") ? json.get("rtol").getAsDouble() : 0;
  }
}
