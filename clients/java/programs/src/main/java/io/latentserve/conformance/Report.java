// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Report of the results of all cases. */
final class Report {
  private static final String PASSED = "passed";
  private static final String FAILED = "failed";

  private final JsonObject whole = counts();
  private final JsonObject groups = new JsonObject();
  private final JsonArray cases = new JsonArray();

  private static JsonObject counts() {
    JsonObject counts = new JsonObject();
    counts.addProperty(PASSED, 0);
    counts.addProperty(FAILED, 0);
    return counts;
  }

  /** Adds a case that passed (reason is null) or failed. */
  void add(String name, String reason) {
    String group = name.substring(0, name.indexOf('/'));
    if (!groups.has(group)) {
      groups.add(group, counts());
    }
    String outcome = reason == null ? PASSED : FAILED;
    for (JsonObject counts : new JsonObject[] {whole, groups.getAsJsonObject(group)}) {
      counts.addProperty(outcome, counts.get(outcome).getAsInt() + 1);
    }
    JsonObject one = new JsonObject();
    one.addProperty("name", name);
    one.addProperty(PASSED, reason == null);
    one.addProperty("reason", reason == null ? "" : reason);
    cases.add(one);
  }

  boolean allPassed() {
    return whole.get(FAILED).getAsInt() == 0;
  }

  void write(Path path) throws IOException {
    JsonObject report = whole.deepCopy();
    report.addProperty("language", "java");
    report.add("groups", groups);
    report.add("cases", cases);
    Files.writeString(path, new Gson().toJson(report));
  }

  @Override
  public String toString() {
    return whole.get(PASSED) + " passed, " + whole.get(FAILED) + " failed";
  }
}
