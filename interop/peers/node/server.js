#!/usr/bin/env node
// The test service on grpc-js: server.js --port=N [--use_tls=true --tls_cert=FILE --tls_key=FILE]
"use strict";

const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const { grpc, flags, services, INITIAL, TRAILING } = require("./common.js");

/** Echoes the metadata that is to be echoed in the head, and gives what is for the end. */
function echo(call) {
  const [initial] = call.metadata.get(INITIAL);
  const [trailing] = call.metadata.get(TRAILING);
  const head = new grpc.Metadata();
  const end = new grpc.Metadata();
  if (initial !== undefined) head.set(INITIAL, initial);
  if (trailing !== undefined) end.set(TRAILING, trailing);
  call.sendMetadata(head);
  return end;
}

const payload = (size) => ({ payload: { body: Buffer.alloc(size) } });

/** The failure that a request asks for. */
function failure(request, metadata) {
  const status = request.response_status;
  return status?.code ? { code: status.code, details: status.message, metadata } : null;
}

async function answer(call, request) {
  for (const { size, interval_us: interval } of request.response_parameters) {
    if (interval) await sleep(interval / 1000);
    call.write(payload(size));
  }
}

const service = {
  EmptyCall(call, done) {
    done(null, {}, echo(call));
  },
  UnaryCall(call, done) {
    const end = echo(call);
    const failed = failure(call.request, end);
    if (failed) done(failed);
    else done(null, payload(call.request.response_size), end);
  },
  CacheableUnaryCall(call, done) {
    service.UnaryCall(call, done);
  },
  async StreamingOutputCall(call) {
    const end = echo(call);
    await answer(call, call.request);
    call.end(end);
  },
  StreamingInputCall(call, done) {
    const end = echo(call);
    let size = 0;
    call.on("data", (request) => (size += request.payload.body.length));
    call.on("end", () => done(null, { aggregated_payload_size: size }, end));
  },
  FullDuplexCall(call) {
    const end = echo(call);
    // One after the other, as they come.
    let work = Promise.resolve();
    call.on("data", (request) => {
      const failed = failure(request, end);
      work = work.then(() => (failed ? call.emit("error", failed) : answer(call, request)));
    });
    call.on("end", () => work.then(() => call.end(end)));
  },
  HalfDuplexCall(call) {
    service.FullDuplexCall(call);
  },
};

const { port = "0", use_tls: tls, tls_cert: cert, tls_key: key } = flags();
const server = new grpc.Server();
server.addService(services().TestService.service, service);
const credentials =
  tls === "true"
    ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: fs.readFileSync(cert), private_key: fs.readFileSync(key) }])
    : grpc.ServerCredentials.createInsecure();
server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) => {
  if (error) throw error;
  console.log(`listens on 127.0.0.1:${bound}`);
});
