// What client and server have in common: the flags in their official form, and the services.
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

/** `--name=value` for each. */
function flags() {
  const pairs = process.argv.slice(2).map((flag) => flag.replace(/^--/, "").split(/=(.*)/s));
  return Object.fromEntries(pairs);
}

function services() {
  // The programs run from a copy beside what npm installs, and are told where the messages are.
  const folder = process.env.PROTOS;
  const definition = loader.loadSync("grpc/testing/test.proto", {
    includeDirs: [path.resolve(folder)],
    keepCase: true,
    longs: Number,
    defaults: true,
  });
  return grpc.loadPackageDefinition(definition).grpc.testing;
}

const INITIAL = "x-grpc-test-echo-initial";
const TRAILING = "x-grpc-test-echo-trailing-bin";

module.exports = { grpc, flags, services, INITIAL, TRAILING };
