// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Folder of cases and their files. */
record CaseFolder(Path path) {
  /** Returns the cases of these groups, or of all groups if none is given. */
  List<JsonObject> cases(List<String> groups) throws IOException {
    List<String> known = new ArrayList<>();
    List<JsonObject> cases = new ArrayList<>();
    for (JsonElement file : read("index.json").getAsJsonArray("groups")) {
      JsonObject document = read(file.getAsString());
      String group = document.get("group").getAsString();
      known.add(group);
      if (groups.isEmpty() || groups.contains(group)) {
        document.getAsJsonArray("cases").forEach(one -> cases.add(one.getAsJsonObject()));
      }
    }
    for (String group : groups) {
      if (!known.contains(group)) {
        throw new IOException("unknown group \"" + group + "\"; available: " + known);
      }
    }
    return cases;
  }

  private JsonObject read(String name) throws IOException {
    return JsonParser.parseString(Files.readString(path.resolve(name))).getAsJsonObject();
  }

  byte[] file(String name) {
    try {
      return Files.readAllBytes(path.resolve(name));
    } catch (IOException missing) {
      throw new UncheckedIOException(missing);
    }
  }

  /** Returns the bytes of {"file": PATH} or {"zeros": N}. */
  byte[] bytes(JsonObject data) {
    return data.has("file")
        ? file(data.get("file").getAsString())
        : new byte[data.get("zeros").getAsInt()];
  }

  byte[] bytes(CaseTensor tensor) {
    byte[] once = bytes(tensor.data());
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    for (int k = 0; k < tensor.repeat(); k++) {
      all.writeBytes(once);
    }
    return all.toByteArray();
  }
}
