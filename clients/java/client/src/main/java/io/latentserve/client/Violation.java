// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.io.Serializable;

/**
 * One field of a request that is wrong.
 *
 * @param field a dotted path in the request, for example {@code images.tensor.shape}
 * @param description what was sent and what is expected
 */
public record Violation(String field, String description) implements Serializable {}
