//! Generates tower-grpc's clients and servers from .proto files, without protoc.
