/** Generated messages and stubs, for features that the client does not wrap. */
export * from "./generated/latentserve/v1/generative_service.js";
export {
  GetModelRequest,
  GetModelResponse,
  ListModelsRequest,
  ListModelsResponse,
  Model,
  ModelServiceClient,
  ModelServiceService,
  ReloadModelsRequest,
  ReloadModelsResponse,
} from "./generated/latentserve/v1/model_service.js";
export type { ModelServiceServer } from "./generated/latentserve/v1/model_service.js";
export {
  DataType,
  EncodedImages,
  ImageFormat,
  Images,
  ModelRef,
  ServedBy,
  Tensor,
  Timings,
} from "./generated/latentserve/v1/tensor.js";
