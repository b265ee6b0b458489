// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import io.grpc.StatusRuntimeException;
import io.latentserve.client.LatentserveException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs the cases of clients/conformance through the Java client.
 *
 * <pre>{@code --cases DIR --servers FILE [--groups encode,errors] [--report FILE]}</pre>
 */
public final class Conformance {
  private static final long CASE_LIMIT_S = 60;

  private Conformance() {}

  /** Exits with 0 where all passed, 1 where one failed, 2 where nothing could be run. */
  public static void main(String[] arguments) {
    int status = 2;
    try {
      status = run(options(arguments));
    } catch (IOException | JsonParseException | IllegalArgumentException problem) {
      System.err.println(problem);
    }
    System.exit(status); // a case that was given up may still hold a thread
  }

  private static Map<String, String> options(String[] arguments) {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i < arguments.length; i += 2) {
      String name = arguments[i];
      if (!Set.of("--cases", "--servers", "--groups", "--report").contains(name)
          || i + 1 == arguments.length) {
        throw new IllegalArgumentException(
            "usage: --cases DIR --servers FILE"
                + " [--groups NAME,...] [--report FILE]; not "
                + name);
      }
      options.put(name, arguments[i + 1]);
    }
    if (!options.containsKey("--cases") || !options.containsKey("--servers")) {
      throw new IllegalArgumentException("--cases and --servers are needed");
    }
    return options;
  }

  private static int run(Map<String, String> options) throws IOException {
    CaseFolder folder = new CaseFolder(Path.of(options.get("--cases")));
    String groups = options.getOrDefault("--groups", "");
    List<JsonObject> cases =
        folder.cases(groups.isEmpty() ? List.of() : List.of(groups.split(",")));
    Report report = new Report();
    ExecutorService executor = Executors.newCachedThreadPool();
    try (Caller caller = new Caller(addresses(Path.of(options.get("--servers"))), folder)) {
      for (JsonObject json : cases) {
        String name = json.get("name").getAsString();
        String reason = guarded(executor, () -> check(caller, folder, new TestCase(json)));
        if (reason != null) {
          System.out.println("FAILED " + name + ": " + reason);
        }
        report.add(name, reason);
      }
    }
    if (options.containsKey("--report")) {
      report.write(Path.of(options.get("--report")));
    }
    System.out.println(report);
    return report.allPassed() ? 0 : 1;
  }

  private static Map<String, String> addresses(Path servers) throws IOException {
    JsonObject document = JsonParser.parseString(Files.readString(servers)).getAsJsonObject();
    Map<String, String> addresses = new HashMap<>();
    JsonObject known = document.getAsJsonObject("servers");
    known.keySet().forEach(key -> addresses.put(key, known.get(key).getAsString()));
    return addresses;
  }

  private static void check(Caller caller, CaseFolder folder, TestCase test) {
    Answer answer;
    try {
      answer = caller.call(test);
    } catch (LatentserveException failure) {
      Failures.check(test, failure);
      return;
    } catch (StatusRuntimeException failure) {
      // Of a stub, which this runner calls itself.
      Failures.check(test, LatentserveException.from(failure));
      return;
    }
    new Checks(folder).check(test, answer);
  }

  /** Returns why a case failed, null where it passed; nothing reaches the next case. */
  private static String guarded(ExecutorService executor, Runnable test) {
    Future<?> outcome = executor.submit(test);
    try {
      outcome.get(CASE_LIMIT_S, TimeUnit.SECONDS);
      return null;
    } catch (TimeoutException late) {
      outcome.cancel(true);
      return "not done after " + CASE_LIMIT_S + " s";
    } catch (ExecutionException failure) {
      Throwable cause = failure.getCause();
      return cause instanceof Mismatch ? cause.getMessage() : cause.toString();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return "interrupted";
    }
  }
}
