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
 * Conformance runner of the Java client; see clients/conformance/README.md.
 *
 * <pre>{@code --cases DIR --servers FILE [--groups encode,errors] [--report FILE]}</pre>
 */
public final class Conformance {
  private static final long CASE_LIMIT_S = 60;

  private Conformance() {}

  /** Exits with 0 if all cases passed, 1 if one failed, 2 if the runner could not run. */
  public static void main(String[] arguments) {
    int status = 2;
    try {
      status = run(options(arguments));
    } catch (IOException | JsonParseException | IllegalArgumentException problem) {
      System.err.println(problem);
    }
    System.exit(status); // a case that timed out may still block a thread
  }

  private static Map<String, String> options(String[] arguments) {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i < arguments.length; i += 2) {
      String name = arguments[i];
      if (!Set.of("--cases", "--servers", "--groups", "--report").contains(name)
          || i + 1 == arguments.length) {
        throw new IllegalArgumentException(
            "usage: --cases DIR --servers FILE"
                + " [--groups NAME,...] [--report FILE]; unknown argument "
                + name);
      }
      options.put(name, arguments[i + 1]);
    }
    if (!options.containsKey("--cases") || !options.containsKey("--servers")) {
      throw new IllegalArgumentException("--cases and --servers are required");
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
    CallResult result;
    try {
      result = caller.call(test);
    } catch (LatentserveException failure) {
      Failures.check(test, failure);
      return;
    } catch (StatusRuntimeException failure) {
      // The error of a stub call.
      Failures.check(test, LatentserveException.from(failure));
      return;
    }
    new Checks(folder).check(test, result);
  }

  /** Returns why a case failed, null if it passed. An error or a hang fails only this case. */
  private static String guarded(ExecutorService executor, Runnable test) {
    Future<?> outcome = executor.submit(test);
    try {
      outcome.get(CASE_LIMIT_S, TimeUnit.SECONDS);
      return null;
    } catch (TimeoutException late) {
      outcome.cancel(true);
      return "the case did not finish within " + CASE_LIMIT_S + " s";
    } catch (ExecutionException failure) {
      Throwable cause = failure.getCause();
      return cause instanceof Mismatch ? cause.getMessage() : cause.toString();
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return "interrupted";
    }
  }
}
