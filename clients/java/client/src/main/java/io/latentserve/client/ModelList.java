// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.ListModelsResponse;
import java.util.List;

/**
 * All versions of all models, by name, then by version from high to low.
 *
 * @param models one per version
 * @param defaultModel the name that a call without a model uses; empty where there is none
 */
public record ModelList(List<Model> models, String defaultModel) {
  static ModelList from(ListModelsResponse reply) {
    return new ModelList(
        reply.getModelsList().stream().map(Model::from).toList(), reply.getDefaultModel());
  }
}
