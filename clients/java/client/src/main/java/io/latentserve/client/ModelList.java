// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.ListModelsResponse;
import java.util.List;

/**
 * All versions of all models, sorted by name, then by version in descending order.
 *
 * @param models one per version
 * @param defaultModel the model of calls that name none; empty if the server has no default
 */
public record ModelList(List<Model> models, String defaultModel) {
  static ModelList from(ListModelsResponse reply) {
    return new ModelList(
        reply.getModelsList().stream().map(Model::from).toList(), reply.getDefaultModel());
  }
}
