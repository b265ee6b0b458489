import {
  type Model as ModelMessage,
  Model_State,
  Operation as OperationMessage,
  type ReloadModelsResponse,
  ReloadOutcome_Action,
} from "./generated/latentserve/v1/model_service.js";

export type Operation = "encode" | "decode" | "reconstruct" | "denoise" | "sample";

/** One version of one model. */
export interface Model {
  readonly name: string;
  readonly version: number;
  /** `ready`, `loading` or `refused`. */
  readonly state: string;
  /** Why it was refused; empty otherwise. */
  readonly reason: string;
  /** SHA-256 of its manifest, which identifies the weights. */
  readonly digest: string;
  /** For example `autoencoder`, `denoising`, `vae`. */
  readonly kind: string;
  readonly description: string;
  readonly image: {
    /** 1 (grey) or 3 (RGB). */
    readonly channels: number;
    readonly height: number;
    readonly width: number;
  };
  readonly latent: {
    /** Values per image. */
    readonly dim: number;
    /** `standard_normal`, `gaussian_mixture`, or `none` where the model cannot sample. */
    readonly prior: string;
    /** Whether `encode` returns one and takes a seed. */
    readonly hasLogVariance: boolean;
    /** Of a gaussian_mixture; 0 with another prior. */
    readonly mixtureComponents: number;
  };
  /** What it can do; what a newer server knows beyond these comes as it is. */
  readonly operations: readonly (Operation | (string & {}))[];
  /** p(x|z), with the decoded image as its mean; undefined where it was not trained as one. */
  readonly likelihood: { readonly family: string; readonly sigma: number } | undefined;
  readonly limits: {
    readonly maxRequestRows: number;
    readonly maxStreamRows: bigint;
    readonly maxBatchRows: number;
  };
  /** The ONNX Runtime execution provider; empty until it is loaded. */
  readonly provider: string;
  readonly metrics: readonly Metric[];
}

/** One figure that was measured when the model was exported. */
export interface Metric {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What the value is to be compared with; undefined where there is none. */
  readonly baseline: number | undefined;
  readonly baselineName: string;
  /** Images it was measured on. */
  readonly samples: bigint;
  readonly estimator: string;
}

/** All versions of all models, by name, then by version from high to low. */
export interface ModelList {
  readonly models: readonly Model[];
  /** The name that a call without a model uses; empty where there is none. */
  readonly default: string;
}

/** What became of one version in a reload. */
export interface ReloadOutcome {
  readonly name: string;
  readonly version: number;
  /** `unchanged`, `loaded`, `refused` or `removed`. */
  readonly action: string;
  /** Why it was refused; empty otherwise. */
  readonly reason: string;
}

export function modelFromMessage(message: ModelMessage): Model {
  const { name, version, reason, digest, kind, description, provider } = message;
  const { image, latent, limits, likelihood } = message;
  return {
    ...{ name, version, reason, digest, kind, description, provider },
    state: enumName(Model_State, "STATE_", message.state),
    image: {
      channels: image?.channels ?? 0,
      height: image?.height ?? 0,
      width: image?.width ?? 0,
    },
    latent: {
      dim: latent?.dim ?? 0,
      prior: latent?.prior ?? "",
      hasLogVariance: latent?.hasLogVariance ?? false,
      mixtureComponents: latent?.mixtureComponents ?? 0,
    },
    operations: message.operations.map((value) => enumName(OperationMessage, "OPERATION_", value)),
    likelihood: likelihood && { family: likelihood.family, sigma: likelihood.sigma },
    limits: {
      maxRequestRows: limits?.maxRequestRows ?? 0,
      maxStreamRows: limits?.maxStreamRows ?? 0n,
      maxBatchRows: limits?.maxBatchRows ?? 0,
    },
    metrics: message.metrics.map((metric) => ({
      name: metric.name,
      value: metric.value,
      unit: metric.unit,
      baseline: metric.baseline,
      baselineName: metric.baselineName,
      samples: metric.samples,
      estimator: metric.estimator,
    })),
  };
}

export function outcomesFromMessage(message: ReloadModelsResponse): ReloadOutcome[] {
  return message.outcomes.map(({ name, version, action, reason }) => ({
    ...{ name, version, reason },
    action: enumName(ReloadOutcome_Action, "ACTION_", action),
  }));
}

/** Returns `ready` for STATE_READY; the number of a value from a newer server. */
function enumName(names: Record<number, string>, prefix: string, value: number): string {
  return names[value]?.slice(prefix.length).toLowerCase() ?? String(value);
}
