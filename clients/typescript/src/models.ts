import {
  type Model as ModelMessage,
  Model_State,
  Operation as OperationMessage,
  type ReloadModelsResponse,
  ReloadOutcome_Action,
} from "./generated/latentserve/v1/model_service.js";

export type Operation = "encode" | "decode" | "reconstruct" | "denoise" | "sample";

/** Description of one version of a model. */
export interface Model {
  readonly name: string;
  readonly version: number;
  /** `ready`, `loading` or `refused`. */
  readonly state: string;
  /** Why the version was refused; empty otherwise. */
  readonly reason: string;
  /** SHA-256 of the manifest, which identifies the weights. */
  readonly digest: string;
  /** Kind of the model, for example `autoencoder`, `denoising` or `vae`. */
  readonly kind: string;
  readonly description: string;
  readonly image: {
    /** 1 (greyscale) or 3 (RGB). */
    readonly channels: number;
    readonly height: number;
    readonly width: number;
  };
  readonly latent: {
    /** Number of latents per image. */
    readonly dim: number;
    /** `standard_normal`, `gaussian_mixture`, or `none` if the model cannot sample. */
    readonly prior: string;
    /** Whether `encode` returns a log variance and accepts a seed. */
    readonly hasLogVariance: boolean;
    /** Number of components of a gaussian_mixture; 0 for other priors. */
    readonly mixtureComponents: number;
  };
  /** Supported operations; operations of a newer server are passed through. */
  readonly operations: readonly (Operation | (string & {}))[];
  /** p(x|z), whose mean is the decoded image; undefined if not trained with a likelihood. */
  readonly likelihood: { readonly family: string; readonly sigma: number } | undefined;
  readonly limits: {
    readonly maxRequestRows: number;
    readonly maxStreamRows: bigint;
    readonly maxBatchRows: number;
  };
  /** ONNX Runtime execution provider; empty until the model is loaded. */
  readonly provider: string;
  readonly metrics: readonly Metric[];
}

/** Metric of a model, measured at export. */
export interface Metric {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** Comparison value; undefined if there is none. */
  readonly baseline: number | undefined;
  readonly baselineName: string;
  /** Number of images in the evaluation. */
  readonly samples: bigint;
  readonly estimator: string;
}

/** All versions of all models, sorted by name, then by version in descending order. */
export interface ModelList {
  readonly models: readonly Model[];
  /** Model of calls that name none; empty if the server has no default. */
  readonly default: string;
}

/** Result of a reload for one version. */
export interface ReloadOutcome {
  readonly name: string;
  readonly version: number;
  /** `unchanged`, `loaded`, `refused` or `removed`. */
  readonly action: string;
  /** Why the version was refused; empty otherwise. */
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

/** Returns `ready` for STATE_READY; for a value of a newer server, its number. */
function enumName(names: Record<number, string>, prefix: string, value: number): string {
  return names[value]?.slice(prefix.length).toLowerCase() ?? String(value);
}
