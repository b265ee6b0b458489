import { Client as GrpcClient, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";

import { type Client, fromGrpc, type LatentserveError } from "../src/index.js";
import { imagesFromMessage } from "../src/images.js";
import * as pb from "../src/stubs.js";
import { tensorFromMessage } from "../src/tensor.js";
import { type CallResult, DEFAULT_DEADLINE_MS, type Part } from "./calls.js";
import { type Case, type CaseFolder, type CaseTensor, methodOf } from "./cases.js";

/** Error of a call with its trailers. */
export class Failure extends Error {
  constructor(
    readonly error: LatentserveError,
    readonly trailers: Metadata,
  ) {
    super(error.message);
  }
}

interface Codec {
  readonly encode: (message: never) => { finish(): Uint8Array };
}

const REQUESTS: Readonly<Record<string, Codec>> = {
  Encode: pb.EncodeRequest,
  Decode: pb.DecodeRequest,
  Reconstruct: pb.ReconstructRequest,
  Denoise: pb.DenoiseRequest,
  Sample: pb.SampleRequest,
  SampleStream: pb.SampleStreamRequest,
  ListModels: pb.ListModelsRequest,
  GetModel: pb.GetModelRequest,
  ReloadModels: pb.ReloadModelsRequest,
};

type Reply = pb.SampleResponse | pb.SampleStreamResponse;

/**
 * Executes a call that bypasses the client, to send a request that the client refuses or to check
 * trailers. It encodes the request as the generated stub does, or sends raw bytes.
 */
export async function callThroughStub(
  client: Client,
  address: string,
  test: Case,
  folder: CaseFolder,
): Promise<CallResult> {
  const stub = new GrpcClient(address, credentials.createInsecure(), {
    channelOverride: client.channel,
  });
  const path = `/${test.rpc}`;
  const body = test.body ? folder.bytes(test.body) : messageBytes(test, folder);
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(test.metadata ?? {})) metadata.set(key, value);
  const options = { deadline: Date.now() + (test.deadline_ms ?? DEFAULT_DEADLINE_MS) };
  const asIs = (bytes: Buffer) => bytes;
  const isStream = methodOf(test) === "SampleStream";
  return new Promise((resolve, reject) => {
    const replies: Reply[] = [];
    const done = (error: ServiceError | null) => {
      clearTimeout(timer);
      try {
        if (error) reject(new Failure(fromGrpc(error), error.metadata));
        else resolve({ parts: replies.map(partOf) });
      } catch (problem) {
        reject(problem instanceof Error ? problem : new Error(String(problem)));
      }
    };
    const call = isStream
      ? stub
          .makeServerStreamRequest(
            path,
            asIs,
            (bytes) => pb.SampleStreamResponse.decode(bytes),
            body,
            metadata,
            options,
          )
          .on("data", (reply: Reply) => replies.push(reply))
          .on("error", done)
          .on("end", () => {
            done(null);
          })
      : stub.makeUnaryRequest(
          path,
          asIs,
          (bytes) => pb.SampleResponse.decode(bytes),
          body,
          metadata,
          options,
          (error, reply) => {
            if (reply) replies.push(reply);
            done(error);
          },
        );
    const timer = setTimeout(() => {
      if (test.cancel_after_ms !== undefined) call.cancel();
    }, test.cancel_after_ms ?? 0);
  });
}

/** Returns the request message of a case, valid or not. */
function messageBytes(test: Case, folder: CaseFolder): Buffer {
  const request = test.request ?? {};
  const codec = REQUESTS[methodOf(test)];
  if (!codec) throw new Error(`this runner has no request message for ${test.rpc}`);
  const { images } = request;
  const message = {
    model: request.model && {
      name: request.model.name ?? "",
      version: request.model.version ?? 0,
    },
    images: images && {
      form: images.tensor
        ? { $case: "tensor", value: tensorMessage(images.tensor, folder) }
        : {
            $case: "encoded",
            value: { files: (images.encoded ?? []).map((file) => folder.file(file)) },
          },
    },
    latents: request.latents && tensorMessage(request.latents, folder),
    outputFormat: enumValue<pb.ImageFormat>(pb.ImageFormat, "IMAGE_FORMAT_", request.output_format),
    count:
      methodOf(test) === "SampleStream" ? BigInt(request.count ?? 0) : Number(request.count ?? 0),
    seed: request.seed === undefined ? undefined : BigInt(request.seed),
    offset: BigInt(request.offset ?? 0),
    temperature: request.temperature === undefined ? undefined : Number(request.temperature),
    includeLatents: request.include_latents ?? false,
    chunkRows: request.chunk_rows ?? 0,
    names: request.names ?? [],
  };
  return Buffer.from(codec.encode(message as never).finish());
}

function tensorMessage(tensor: CaseTensor, folder: CaseFolder): pb.Tensor {
  return {
    dataType: enumValue<pb.DataType>(pb.DataType, "DATA_TYPE_", tensor.dtype),
    shape: tensor.shape.map(BigInt),
    data: folder.tensorBytes(tensor),
  };
}

/** Returns an enum value by its name without prefix, or an unknown value by its number. */
function enumValue<E extends number>(
  names: Readonly<Record<string, E | string>>,
  prefix: string,
  name = "UNSPECIFIED",
): E {
  if (/^\d+$/.test(name)) return Number(name) as E;
  const value = names[prefix + name];
  if (typeof value !== "number") throw new Error(`unknown enum value ${prefix}${name}`);
  return value;
}

function partOf(reply: Reply): Part {
  if (!reply.servedBy || !reply.timings) throw new Error("the reply lacks servedBy or timings");
  return {
    images: imagesFromMessage(reply.images, "float32"),
    latents: reply.latents && tensorFromMessage(reply.latents, 2),
    seed: reply.seed,
    servedBy: reply.servedBy,
    timings: reply.timings,
    ...("offset" in reply ? { offset: reply.offset } : {}),
  };
}
