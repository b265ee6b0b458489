/** Conformance runner of the TypeScript client; see clients/conformance/README.md. */

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { LatentserveError } from "../src/index.js";
import { callThroughStub, Failure } from "./stubCalls.js";
import { callThroughClient, Clients } from "./calls.js";
import { type Case, CaseFolder } from "./cases.js";
import { checkResult, checkFailure } from "./checks.js";

const CASE_LIMIT_MS = 60_000;

async function tryCase(clients: Clients, test: Case, folder: CaseFolder): Promise<void> {
  const client = clients.of(test);
  let result;
  try {
    result =
      test.through === "client"
        ? await callThroughClient(client, test, folder)
        : await callThroughStub(client, clients.address(test), test, folder);
  } catch (error) {
    if (error instanceof Failure) checkFailure(test, error.error, error.trailers);
    else if (error instanceof LatentserveError) checkFailure(test, error);
    else throw error;
    return;
  }
  checkResult(test, result, folder);
}

/** Fails a case that takes longer than the limit. */
async function guarded(trying: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`the case did not finish within ${CASE_LIMIT_MS} ms`));
    }, CASE_LIMIT_MS);
  });
  try {
    await Promise.race([trying, limit]);
  } finally {
    clearTimeout(timer);
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      cases: { type: "string" },
      servers: { type: "string" },
      groups: { type: "string" },
      report: { type: "string" },
    },
  });
  if (!values.cases || !values.servers) throw new Error("--cases and --servers are required");
  const folder = new CaseFolder(values.cases);
  const tests = folder.read(values.groups ? values.groups.split(",") : []);
  const clients = new Clients(values.servers);
  const report = {
    language: "typescript",
    passed: 0,
    failed: 0,
    groups: {} as Record<string, { passed: number; failed: number }>,
    cases: [] as { name: string; passed: boolean; reason: string }[],
  };
  for (const test of tests) {
    let reason = "";
    try {
      await guarded(tryCase(clients, test, folder));
    } catch (error) {
      reason = error instanceof Error ? error.message || error.name : String(error);
      console.log(`FAILED ${test.name}: ${reason}`);
    }
    const name = test.name.slice(0, test.name.indexOf("/"));
    const group = (report.groups[name] ??= { passed: 0, failed: 0 });
    const outcome = reason ? "failed" : "passed";
    report[outcome]++;
    group[outcome]++;
    report.cases.push({ name: test.name, passed: !reason, reason });
  }
  clients.close();
  if (values.report) writeFileSync(values.report, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`${report.passed} passed, ${report.failed} failed`);
  return report.failed > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
