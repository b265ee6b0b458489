// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/**
 * Result of a reload for one version.
 *
 * @param name the model's name
 * @param version the version
 * @param action the action taken
 * @param reason why the version was refused; empty otherwise
 */
public record ReloadOutcome(String name, int version, Action action, String reason) {
  /** Action of a reload. */
  public enum Action {
    /** It was served before and has not changed. */
    UNCHANGED,
    /** It was checked and warmed up, and is served now. */
    LOADED,
    /** It failed its checks. */
    REFUSED,
    /** Its folder was removed; it is no longer served. */
    REMOVED,
    /** A value of a newer server. */
    UNKNOWN
  }

  static ReloadOutcome from(io.latentserve.v1.ReloadOutcome message) {
    Action action =
        switch (message.getAction()) {
          case ACTION_UNCHANGED -> Action.UNCHANGED;
          case ACTION_LOADED -> Action.LOADED;
          case ACTION_REFUSED -> Action.REFUSED;
          case ACTION_REMOVED -> Action.REMOVED;
          case ACTION_UNSPECIFIED, UNRECOGNIZED -> Action.UNKNOWN;
        };
    return new ReloadOutcome(message.getName(), message.getVersion(), action, message.getReason());
  }
}
