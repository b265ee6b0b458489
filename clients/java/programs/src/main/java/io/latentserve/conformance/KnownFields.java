// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonObject;
import java.util.Set;

/** Refuses unknown fields of a case, because this runner would not check them. */
final class KnownFields {
  private KnownFields() {}

  static void check(JsonObject object, Set<String> known) {
    for (String key : object.keySet()) {
      if (!known.contains(key)) {
        throw new Mismatch("this runner does not know \"" + key + "\"");
      }
    }
  }
}
