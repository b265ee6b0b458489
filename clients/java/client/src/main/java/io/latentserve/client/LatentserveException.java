// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * What can go wrong in a call: by the server's answer, on the way to it, or before anything was
 * sent, and then with the code {@code INVALID_ARGUMENT}.
 */
public final class LatentserveException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** What a failure is, where the code alone does not say it. */
  public enum Kind {
    /** Too many rows wait for the model; {@link #retryDelay} says how long to wait. */
    QUEUE_FULL,
    /**
     * The request or the reply exceeds a limit. Trying again does not help: send fewer images, ask
     * for {@link Format#UINT8} or {@link Format#PNG}, or raise {@code maxMessageBytes}.
     */
    MESSAGE_TOO_LARGE,
    /** The model lacks the operation; {@code metadata().get("operations")} has its own. */
    OPERATION_NOT_SUPPORTED,
    /** No such model or version; {@code metadata().get("models")} lists what there is. */
    MODEL_NOT_FOUND,
    /** The reply breaks the wire contract: server and client differ in version. */
    BAD_REPLY,
    /** Anything else; the code says it. */
    OTHER
  }

  private final Status.Code code;
  private final Kind kind;
  private final String description;
  private final String reason;
  private final String domain;
  // Both are of the immutable collections, which are serializable.
  private final Map<String, String> metadata;
  private final List<Violation> violations;
  private final Duration retryDelay;

  private LatentserveException(
      Status.Code code, Kind kind, String description, Details details, Throwable cause) {
    super(text(code, description, details), cause);
    this.code = code;
    this.kind = kind;
    this.description = description;
    this.reason = details.reason;
    this.domain = details.domain;
    this.metadata = Map.copyOf(details.metadata);
    this.violations = List.copyOf(details.violations);
    this.retryDelay = details.retryDelay;
  }

  /** Returns the exception of any failed gRPC call, also of one made with the generated stubs. */
  public static LatentserveException from(Throwable failure) {
    return from(failure, "the server gave no reason");
  }

  /** The same, with the words for a method whose server side sends none. */
  static LatentserveException from(Throwable failure, String unsaid) {
    if (failure instanceof LatentserveException already) {
      return already;
    }
    Status status = Status.fromThrowable(failure);
    String description = described(status);
    if (description.isEmpty()) {
      description = unsaid;
    }
    Details details = Details.of(failure);
    Kind kind = kindOf(status.getCode(), details.reason, description);
    return new LatentserveException(status.getCode(), kind, description, details, failure);
  }

  private static String described(Status status) {
    String description = status.getDescription() == null ? "" : status.getDescription();
    if (status.getCause() == null) {
      return description; // the server's own words
    }
    // "io exception" and how gRPC is built inside help nobody; what lies below does.
    StringBuilder text = new StringBuilder(description.split("\nChannel Pipeline", 2)[0]);
    for (Throwable cause = status.getCause(); cause != null; cause = cause.getCause()) {
      if (cause.getMessage() != null && text.indexOf(cause.getMessage()) < 0) {
        text.append(text.isEmpty() ? "" : ": ").append(cause.getMessage());
      }
    }
    return text.toString();
  }

  /** For an argument that is refused before anything is sent. */
  static LatentserveException invalid(String field, String description) {
    Details details = new Details();
    details.violations.add(new Violation(field, description));
    return new LatentserveException(
        Status.Code.INVALID_ARGUMENT, Kind.OTHER, field + ": " + description, details, null);
  }

  static LatentserveException tooLarge(int bytes, int maxBytes) {
    return new LatentserveException(
        Status.Code.RESOURCE_EXHAUSTED,
        Kind.MESSAGE_TOO_LARGE,
        "a request of " + bytes + " bytes, larger than max (maxMessageBytes is " + maxBytes + ")",
        new Details(),
        null);
  }

  static LatentserveException badReply(String description) {
    return new LatentserveException(
        Status.Code.INTERNAL,
        Kind.BAD_REPLY,
        description + "; the server and this client are of different versions: update the older",
        new Details(),
        null);
  }

  private static Kind kindOf(Status.Code code, String reason, String description) {
    return switch (reason) {
      case "QUEUE_FULL" -> Kind.QUEUE_FULL;
      case "OPERATION_NOT_SUPPORTED" -> Kind.OPERATION_NOT_SUPPORTED;
      case "MODEL_NOT_FOUND" -> Kind.MODEL_NOT_FOUND;
      default -> isTooLarge(code, description) ? Kind.MESSAGE_TOO_LARGE : Kind.OTHER;
    };
  }

  private static boolean isTooLarge(Status.Code code, String description) {
    // gRPC itself answers here, with a text and nothing else: the server's, then this side's.
    return code == Status.Code.RESOURCE_EXHAUSTED
        && (description.contains("larger than max")
            || description.contains("exceeds maximum size"));
  }

  /** The gRPC status code. */
  public Status.Code code() {
    return code;
  }

  /** What it is, where the code alone does not say it. */
  public Kind kind() {
    return kind;
  }

  /** What was wrong, what is expected and what to do; without the details. */
  public String description() {
    return description;
  }

  /** The server's own name for the error, for example {@code QUEUE_FULL}; empty without one. */
  public String reason() {
    return reason;
  }

  /** {@code latentserve} where the server gave a reason; else empty. */
  public String domain() {
    return domain;
  }

  /** What belongs to the reason; {@code request_id} finds the call in the server's log. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The fields of the request that are wrong. */
  public List<Violation> violations() {
    return violations;
  }

  /** How long the server asks to wait before another attempt. */
  public Optional<Duration> retryDelay() {
    return Optional.ofNullable(retryDelay);
  }

  private static String text(Status.Code code, String description, Details details) {
    StringBuilder text = new StringBuilder().append(code).append(": ").append(description);
    for (Violation violation : details.violations) {
      // A server often repeats its only violation as the message.
      if (!description.contains(violation.description())) {
        text.append("; ").append(violation.field()).append(": ").append(violation.description());
      }
    }
    for (String key : List.of("models", "operations")) {
      String have = details.metadata.getOrDefault(key, "");
      if (!description.contains(have)) {
        text.append("; there are: ").append(have);
      }
    }
    String id = details.metadata.getOrDefault("request_id", "");
    if (code == Status.Code.INTERNAL && !description.contains(id)) {
      text.append("; the server's log says why, under request id ").append(id);
    }
    if (details.retryDelay != null) {
      text.append("; try again in ").append(details.retryDelay.toMillis()).append(" ms");
    }
    return text.toString();
  }

  /** The details of a google.rpc.Status. */
  private static final class Details {
    private String reason = "";
    private String domain = "";
    private Map<String, String> metadata = Map.of();
    private final List<Violation> violations = new ArrayList<>();
    private Duration retryDelay;

    private static Details of(Throwable failure) {
      try {
        Details details = new Details();
        com.google.rpc.Status status = StatusProto.fromThrowable(failure);
        if (status != null) {
          for (Any detail : status.getDetailsList()) {
            details.add(detail);
          }
        }
        return details;
      } catch (IllegalArgumentException | InvalidProtocolBufferException rewritten) {
        // A proxy on the way rewrote the status: the details no longer belong to it.
        return new Details();
      }
    }

    private void add(Any detail) throws InvalidProtocolBufferException {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        reason = info.getReason();
        domain = info.getDomain();
        metadata = info.getMetadataMap();
      } else if (detail.is(BadRequest.class)) {
        for (BadRequest.FieldViolation violation :
            detail.unpack(BadRequest.class).getFieldViolationsList()) {
          violations.add(new Violation(violation.getField(), violation.getDescription()));
        }
      } else if (detail.is(RetryInfo.class)) {
        com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
        retryDelay = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
      }
    }
  }
}
