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
 * Error of a call: returned by the server, raised by the transport, or found before anything was
 * sent (the code is then {@code INVALID_ARGUMENT}).
 */
public final class LatentserveException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** Kind of an error, more specific than its code. */
  public enum Kind {
    /** The queue of the model is full; retry after {@link #retryDelay}. */
    QUEUE_FULL,
    /**
     * The request or the reply exceeds a size limit. A retry fails again: send fewer images,
     * request {@link Format#UINT8} or {@link Format#PNG}, or raise {@code maxMessageBytes}.
     */
    MESSAGE_TOO_LARGE,
    /** The model lacks the operation; {@code metadata().get("operations")} lists the supported. */
    OPERATION_NOT_SUPPORTED,
    /** Unknown model or version; {@code metadata().get("models")} lists the available models. */
    MODEL_NOT_FOUND,
    /** The reply violates the protocol; the versions of server and client differ. */
    BAD_REPLY,
    /** Any other error; see its code. */
    OTHER
  }

  private final Status.Code code;
  private final Kind kind;
  private final String description;
  private final String reason;
  private final String domain;
  // Both are immutable collections of java.util, which are serializable.
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

  /** Converts the error of any gRPC call, including calls made with the generated stubs. */
  public static LatentserveException from(Throwable failure) {
    return from(failure, "the server sent no message");
  }

  /** As above, with a default message for methods whose server sends none. */
  static LatentserveException from(Throwable failure, String defaultDescription) {
    if (failure instanceof LatentserveException already) {
      return already;
    }
    Status status = Status.fromThrowable(failure);
    String description = described(status);
    if (description.isEmpty()) {
      description = defaultDescription;
    }
    Details details = Details.of(failure);
    Kind kind = kindOf(status.getCode(), details.reason, description);
    return new LatentserveException(status.getCode(), kind, description, details, failure);
  }

  private static String described(Status status) {
    String description = status.getDescription() == null ? "" : status.getDescription();
    if (status.getCause() == null) {
      return description; // the message of the server
    }
    // Replace "io exception" and gRPC internals with the messages of the causes.
    StringBuilder text = new StringBuilder(description.split("\nChannel Pipeline", 2)[0]);
    for (Throwable cause = status.getCause(); cause != null; cause = cause.getCause()) {
      if (cause.getMessage() != null && text.indexOf(cause.getMessage()) < 0) {
        text.append(text.isEmpty() ? "" : ": ").append(cause.getMessage());
      }
    }
    return text.toString();
  }

  /** Returns the error for an argument that is invalid before anything is sent. */
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
        "the request has " + bytes + " bytes; maxMessageBytes is " + maxBytes,
        new Details(),
        null);
  }

  static LatentserveException badReply(String description) {
    return new LatentserveException(
        Status.Code.INTERNAL,
        Kind.BAD_REPLY,
        description + "; the versions of the server and this client differ: update the older one",
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
    // These errors come from gRPC itself, without details: from the server, then the client.
    return code == Status.Code.RESOURCE_EXHAUSTED
        && (description.contains("larger than max")
            || description.contains("exceeds maximum size"));
  }

  /** The gRPC status code. */
  public Status.Code code() {
    return code;
  }

  /** The kind of the error, more specific than its code. */
  public Kind kind() {
    return kind;
  }

  /** The cause, the expected value, and a remedy; without the details. */
  public String description() {
    return description;
  }

  /** The server's name of the error, for example {@code QUEUE_FULL}; empty if it sent none. */
  public String reason() {
    return reason;
  }

  /** {@code latentserve} if the server sent a reason; otherwise empty. */
  public String domain() {
    return domain;
  }

  /** Details of the reason; {@code request_id} identifies the call in the server's log. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The invalid fields of the request. */
  public List<Violation> violations() {
    return violations;
  }

  /** The delay before a retry that the server requests, if any. */
  public Optional<Duration> retryDelay() {
    return Optional.ofNullable(retryDelay);
  }

  private static String text(Status.Code code, String description, Details details) {
    StringBuilder text = new StringBuilder().append(code).append(": ").append(description);
    for (Violation violation : details.violations) {
      // The server often uses its only violation as the message.
      if (!description.contains(violation.description())) {
        text.append("; ").append(violation.field()).append(": ").append(violation.description());
      }
    }
    for (String key : List.of("models", "operations")) {
      String have = details.metadata.getOrDefault(key, "");
      if (!description.contains(have)) {
        text.append("; available: ").append(have);
      }
    }
    String id = details.metadata.getOrDefault("request_id", "");
    if (code == Status.Code.INTERNAL && !description.contains(id)) {
      text.append("; for the cause, search the server's log for request id ").append(id);
    }
    if (details.retryDelay != null) {
      text.append("; retry after ").append(details.retryDelay.toMillis()).append(" ms");
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
        // A proxy rewrote the status, so the details belong to another one.
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
