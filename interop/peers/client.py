#!/usr/bin/env python3
"""Calls the interop server as Python programs do: by grpcio, with its health and reflection clients.

    client.py --port=N [--ca=FILE --host=NAME]

The messages' classes are made from what reflection says, so nothing is generated. Prints what fails, and exits
non-zero then.
"""

import argparse
import sys
import threading

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "grpc.testing.TestService"
SECONDS = 20


class Peer:
    def __init__(self, flags, compression=None):
        target = f"127.0.0.1:{flags.port}"
        options = [("grpc.max_receive_message_length", 16 << 20)]
        if flags.ca:
            credentials = grpc.ssl_channel_credentials(open(flags.ca, "rb").read())
            options.append(("grpc.ssl_target_name_override", flags.host))
            self.channel = grpc.secure_channel(target, credentials, options, compression)
        else:
            self.channel = grpc.insecure_channel(target, options, compression)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)
        self.service = self.pool.FindServiceByName(SERVICE)

    def message(self, name, **fields):
        return GetMessageClass(self.pool.FindMessageTypeByName(f"grpc.testing.{name}"))(**fields)

    def payload(self, size):
        return self.message("Payload", body=bytes(size))

    def method(self, name):
        """The callable of a method, by the kind that its descriptor says."""
        method = self.service.methods_by_name[name]
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        kind = kinds[method.client_streaming, method.server_streaming]
        encode = GetMessageClass(method.input_type).SerializeToString
        decode = GetMessageClass(method.output_type).FromString
        return kind(f"/{SERVICE}/{name}", encode, decode)


def health(peer):
    stub = health_pb2_grpc.HealthStub(peer.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status == serving
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert next(watch).status == serving
    watch.cancel()
    fails(grpc.StatusCode.NOT_FOUND, stub.Check, health_pb2.HealthCheckRequest(service="nobody"), timeout=SECONDS)


def reflection(peer):
    services = set(peer.database.get_services())
    assert {SERVICE, "grpc.testing.BenchmarkService", "grpc.health.v1.Health"} <= services, services
    assert len(peer.service.methods) == 8, list(peer.service.methods_by_name)
    try:
        peer.pool.FindMessageTypeByName("grpc.testing.Nothing")
    except KeyError:
        return
    raise AssertionError("a message that there isn't was found")


def unary(peer):
    request = peer.message("SimpleRequest", response_size=314159, payload=peer.payload(271828))
    response = peer.method("UnaryCall")(request, timeout=SECONDS)
    assert len(response.payload.body) == 314159


def streams(peer):
    requests = [peer.message("StreamingInputCallRequest", payload=peer.payload(size)) for size in (27182, 8, 1828, 45904)]
    response = peer.method("StreamingInputCall")(iter(requests), timeout=SECONDS)
    assert response.aggregated_payload_size == 74922
    sizes = [31415, 9, 2653, 58979]
    parameters = [peer.message("ResponseParameters", size=size) for size in sizes]
    request = peer.message("StreamingOutputCallRequest", response_parameters=parameters)
    responses = peer.method("StreamingOutputCall")(request, timeout=SECONDS)
    assert [len(response.payload.body) for response in responses] == sizes


def ping_pong(peer):
    """Each request is sent when the answer to the last is here."""
    answered = threading.Semaphore(1)
    sizes = [31415, 9, 2653, 58979]

    def requests():
        for size in sizes:
            answered.acquire()
            parameters = [peer.message("ResponseParameters", size=size)]
            yield peer.message("StreamingOutputCallRequest", response_parameters=parameters, payload=peer.payload(100))

    received = []
    for response in peer.method("FullDuplexCall")(requests(), timeout=SECONDS):
        received.append(len(response.payload.body))
        answered.release()
    assert received == sizes, received


def metadata(peer):
    sent = [("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab\x00\xff")]
    _, call = peer.method("UnaryCall").with_call(peer.message("SimpleRequest"), metadata=sent, timeout=SECONDS)
    assert sent[0] in [tuple(entry) for entry in call.initial_metadata()]
    assert sent[1] in [tuple(entry) for entry in call.trailing_metadata()]


def status(peer):
    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    request = peer.message("SimpleRequest", response_status=peer.message("EchoStatus", code=2, message=text))
    error = fails(grpc.StatusCode.UNKNOWN, peer.method("UnaryCall"), request, timeout=SECONDS)
    assert error.details() == text, error.details()
    fails(grpc.StatusCode.UNIMPLEMENTED, peer.method("UnimplementedCall"), peer.message("Empty"), timeout=SECONDS)


def deadline(peer):
    parameters = [peer.message("ResponseParameters", size=1, interval_us=10_000_000)]
    request = peer.message("StreamingOutputCallRequest", response_parameters=parameters)
    responses = peer.method("StreamingOutputCall")(request, timeout=0.05)
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, next, responses)


def cancel(peer):
    stop = threading.Event()

    def requests():
        yield peer.message("StreamingOutputCallRequest", response_parameters=[peer.message("ResponseParameters", size=9)])
        stop.wait(SECONDS)

    responses = peer.method("FullDuplexCall")(requests(), timeout=SECONDS)
    assert len(next(responses).payload.body) == 9
    responses.cancel()
    stop.set()
    fails(grpc.StatusCode.CANCELLED, next, responses)


def fails(code, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"it should have been {code}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca")
    parser.add_argument("--host")
    flags = parser.parse_args()
    cases = [health, reflection, unary, streams, ping_pong, metadata, status, deadline, cancel]
    failed = 0
    for name, compression in (("plain", None), ("gzip", grpc.Compression.Gzip), ("deflate", grpc.Compression.Deflate)):
        peer = Peer(flags, compression)
        for case in cases:
            try:
                case(peer)
            except Exception as error:  # Whatever it is, the others are run.
                failed += 1
                print(f"{case.__name__}, {name}: {error!r}")
        peer.channel.close()
    print(f"{3 * len(cases)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
