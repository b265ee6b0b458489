// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/**
 * What became of one version in a reload.
 *
 * @param name the model's name
 * @param version the version
 * @param action what was done
 * @param reason why it was refused; empty otherwise
 */
public record ReloadOutcome(String name, int version, Action action, String reason) {
  /** What was done. */
  public enum Action {
    /** Served before and unchanged. */
    UNCHANGED,
    /** Checked, warmed up and now served. */
    LOADED,
    /** Failed its checks. */
    REFUSED,
    /** Its folder is gone; it is served no more. */
    REMOVED,
    /** Something that a newer server tells of. */
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
