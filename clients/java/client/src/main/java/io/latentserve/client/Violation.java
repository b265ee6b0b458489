// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.io.Serializable;

/**
 * An invalid field of a request.
 *
 * @param field dotted path in the request, for example {@code images.tensor.shape}
 * @param description the value received and the value expected
 */
public record Violation(String field, String description) implements Serializable {}
