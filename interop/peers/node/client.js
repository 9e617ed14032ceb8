#!/usr/bin/env node
// The official cases on grpc-js, as far as it can run them: it doesn't say which messages of a call are compressed.
// client.js --server_host=… --server_port=N --test_case=X [--use_tls=true --tls_ca=FILE --server_host_override=NAME]
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const { promisify } = require("node:util");
const { grpc, flags, services, INITIAL, TRAILING } = require("./common.js");

const { status } = grpc;
const given = flags();

function channel() {
  const address = `${given.server_host}:${given.server_port}`;
  if (given.use_tls !== "true") return [address, grpc.credentials.createInsecure(), {}];
  const credentials = grpc.credentials.createSsl(fs.readFileSync(given.tls_ca));
  return [address, credentials, { "grpc.ssl_target_name_override": given.server_host_override }];
}

const { TestService, UnimplementedService } = services();
const connect = () => new TestService(...channel());
const test = connect();

const call = (method, request) => promisify(test[method].bind(test))(request);
const payload = (size) => ({ payload: { body: Buffer.alloc(size) } });
const large = () => ({ response_size: 314159, ...payload(271828) });
const asked = (size) => ({ response_parameters: [{ size }] });

/** How a stream of answers ends: its messages' sizes, and its status. */
function ended(stream) {
  const sizes = [];
  return new Promise((resolve) => {
    stream.on("data", (answer) => sizes.push(answer.payload.body.length));
    stream.on("error", () => {});
    stream.on("status", (end) => resolve({ sizes, ...end }));
  });
}

async function fails(code, details, work) {
  const error = await work.then(
    () => assert.fail("it succeeds"),
    (error) => error,
  );
  assert.strictEqual(error.code, code, error.message);
  if (details !== undefined) assert.strictEqual(error.details, details);
}

async function unaryIsLarge(client = test) {
  const answer = await promisify(client.UnaryCall.bind(client))(large());
  assert.strictEqual(answer.payload.body.length, 314159);
}

const SIZES = [31415, 9, 2653, 58979];

const cases = {
  empty_unary: () => call("EmptyCall", {}),
  cacheable_unary: () => call("CacheableUnaryCall", large()),
  large_unary: () => unaryIsLarge(),
  async client_streaming() {
    const answer = new Promise((resolve, reject) => {
      const stream = test.StreamingInputCall((error, answer) => (error ? reject(error) : resolve(answer)));
      for (const size of [27182, 8, 1828, 45904]) stream.write(payload(size));
      stream.end();
    });
    assert.strictEqual((await answer).aggregated_payload_size, 74922);
  },
  async server_streaming() {
    const request = { response_parameters: SIZES.map((size) => ({ size })) };
    const { sizes, code } = await ended(test.StreamingOutputCall(request));
    assert.deepStrictEqual([sizes, code], [SIZES, status.OK]);
  },
  async ping_pong() {
    const stream = test.FullDuplexCall();
    const end = ended(stream);
    const left = [...SIZES];
    const next = () => (left.length ? stream.write({ ...asked(left.shift()), ...payload(27182) }) : stream.end());
    stream.on("data", next);
    next();
    const { sizes, code } = await end;
    assert.deepStrictEqual([sizes, code], [SIZES, status.OK]);
  },
  async empty_stream() {
    const stream = test.FullDuplexCall();
    const end = ended(stream);
    stream.end();
    const { sizes, code } = await end;
    assert.deepStrictEqual([sizes, code], [[], status.OK]);
  },
  async status_code_and_message() {
    const request = { response_status: { code: status.UNKNOWN, message: "test status message" } };
    await fails(status.UNKNOWN, "test status message", call("UnaryCall", request));
    const stream = test.FullDuplexCall();
    const end = ended(stream);
    stream.write(request);
    stream.end();
    const { code, details } = await end;
    assert.deepStrictEqual([code, details], [status.UNKNOWN, "test status message"]);
  },
  async special_status_message() {
    const message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    const request = { response_status: { code: status.UNKNOWN, message } };
    await fails(status.UNKNOWN, message, call("UnaryCall", request));
  },
  unimplemented_method: () => fails(status.UNIMPLEMENTED, undefined, call("UnimplementedCall", {})),
  unimplemented_service() {
    const other = new UnimplementedService(...channel());
    return fails(status.UNIMPLEMENTED, undefined, promisify(other.UnimplementedCall.bind(other))({}));
  },
  cancel_after_begin() {
    const cancelled = new Promise((resolve, reject) => {
      const stream = test.StreamingInputCall((error, answer) => (error ? reject(error) : resolve(answer)));
      stream.on("error", () => {});
      setImmediate(() => stream.cancel());
    });
    return fails(status.CANCELLED, undefined, cancelled);
  },
  async cancel_after_first_response() {
    const stream = test.FullDuplexCall();
    const end = ended(stream);
    stream.on("data", () => stream.cancel());
    stream.write({ ...asked(31415), ...payload(27182) });
    assert.strictEqual((await end).code, status.CANCELLED);
  },
  async timeout_on_sleeping_server() {
    const stream = test.FullDuplexCall({ deadline: Date.now() + 1 });
    const end = ended(stream);
    stream.write(payload(27182));
    assert.strictEqual((await end).code, status.DEADLINE_EXCEEDED);
  },
  async custom_metadata() {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL, "test_initial_metadata_value");
    metadata.set(TRAILING, Buffer.from("ababab", "hex"));
    const unary = test.UnaryCall(large(), metadata, () => {});
    const stream = test.FullDuplexCall(metadata);
    stream.on("data", () => {});
    stream.write({ ...asked(314159), ...payload(271828) });
    stream.end();
    for (const made of [unary, stream]) {
      const head = new Promise((resolve) => made.on("metadata", resolve));
      const end = new Promise((resolve) => made.on("status", resolve));
      assert.deepStrictEqual((await head).get(INITIAL), ["test_initial_metadata_value"]);
      assert.deepStrictEqual((await end).metadata.get(TRAILING), [Buffer.from("ababab", "hex")]);
    }
  },
  async rpc_soak() {
    for (let times = 0; times < 10; times += 1) await unaryIsLarge();
  },
  async channel_soak() {
    for (let times = 0; times < 10; times += 1) {
      const fresh = connect();
      await unaryIsLarge(fresh);
      fresh.close();
    }
  },
};

const run = cases[given.test_case];
assert(run, `no such case: ${given.test_case}`);
run().then(
  () => process.exit(0),
  (error) => {
    console.error(`${given.test_case}: ${error.message.split("\n")[0]}`);
    process.exit(1);
  },
);
