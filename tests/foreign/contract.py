"""A caller that knows nothing but an address: messages and methods come from the
server's reflection, none from generated files."""

import itertools

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2


class Contract:
    """The services of one server, by reflection `version` ("v1" or "v1alpha")."""

    def __init__(self, address, token=None, version="v1"):
        self.channel = grpc.insecure_channel(address)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        # Both versions have the same messages under another package.
        self._reflect = self.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self.pool = descriptor_pool.DescriptorPool()
        self._files = {}

    def _ask(self, **question):
        request = reflection_pb2.ServerReflectionRequest(**question)
        reply = next(self._reflect(iter([request]), timeout=10))
        assert not reply.HasField("error_response"), reply.error_response
        return reply

    def services(self):
        return sorted(s.name for s in self._ask(list_services="").list_services_response.service)

    def load(self, symbol):
        """Brings the file that defines `symbol`, and what it imports, into the pool."""
        reply = self._ask(file_containing_symbol=symbol)
        self._add(reply.file_descriptor_response.file_descriptor_proto)

    def _add(self, serialized):
        files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in serialized]
        for file in files:
            if file.name in self._files:
                continue
            self._files[file.name] = file
            for name in file.dependency:
                if name not in self._files:
                    known = [f for f in files if f.name == name]
                    if known:
                        self._add([known[0].SerializeToString()])
                    else:
                        reply = self._ask(file_by_filename=name)
                        self._add(reply.file_descriptor_response.file_descriptor_proto)
            self.pool.Add(file)

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def method(self, service, name):
        method = self.pool.FindServiceByName(service).methods_by_name[name]
        request = message_factory.GetMessageClass(method.input_type)
        reply = message_factory.GetMessageClass(method.output_type)
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = make(
            f"/{service}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString,
        )
        return lambda timeout=20, **fields: call(request(**fields), timeout=timeout, metadata=self.metadata)

    def parse(self, name, text):
        """Reads ProtoJSON; an unknown field is an error."""
        return json_format.Parse(text, self.message(name)(), descriptor_pool=self.pool)


def take(stream, count):
    """The first `count` messages of a server stream, which is then cancelled."""
    messages = list(itertools.islice(stream, count))
    stream.cancel()
    return messages
