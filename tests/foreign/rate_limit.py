"""Reads the headers of the rate limit on replies and refusals, and waits as they say.

Usage: rate_limit.py ADDRESS TOKEN PER_SECOND BURST
"""

import re
import sys
import time

import grpc
from contract import Contract
from google.rpc import error_details_pb2
from grpc_status import rpc_status

CA = "catrust.v1.CaCertificateService"

# Lists of Items that are Strings, with Parameters (RFC 9651), as far as the draft has them.
ITEM = re.compile(r'"(?P<name>[ !#-\[\]-~]*)"(?P<parameters>(?:;[a-z][a-z0-9_.*-]*=-?[0-9]{1,15})*)')


def item(field):
    """The one Item of a field: its name and its Parameters."""
    match = ITEM.fullmatch(field)
    assert match, field
    pairs = (pair.split("=") for pair in match["parameters"].split(";")[1:])
    return match["name"], {key: int(value) for key, value in pairs}


def standing(call):
    """What policy and standing a reply's headers tell."""
    headers = dict(call.initial_metadata() or [])
    if "ratelimit" not in headers:
        # A refusal is headers alone, which Python calls trailers.
        headers = dict(call.trailing_metadata())
    (policy_name, policy), (name, now) = item(headers["ratelimit-policy"]), item(headers["ratelimit"])
    assert policy_name == name == "user"
    return policy, now, headers


def main(address, token, per_second, burst):
    per_second, burst = int(per_second), int(burst)
    contract = Contract(address, token)
    contract.load(CA)
    method = contract.pool.FindServiceByName(CA).methods_by_name["ListCaCertificates"]
    request = contract.message(method.input_type.full_name)
    reply = contract.message(method.output_type.full_name)
    rpc = contract.channel.unary_unary(
        f"/{CA}/ListCaCertificates",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )

    def call():
        try:
            _, call = rpc.with_call(request(mqtt_instance_id="absent"), metadata=contract.metadata, timeout=20)
        except grpc.RpcError as error:
            call = error
        return call

    seen = []
    while True:
        answer = call()
        policy, now, headers = standing(answer)
        assert policy == {"q": per_second, "w": 1, "catrust-burst": burst}, policy
        if answer.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            break
        assert answer.code() == grpc.StatusCode.NOT_FOUND, answer
        seen.append(now["r"])
        assert 0 <= now["r"] < burst and now["t"] == 1, now
        assert len(seen) < 100, "never refused"
    assert seen[0] == burst - 1 and 0 in seen, seen
    assert now == {"r": 0, "t": 1}, now

    status = rpc_status.from_call(answer)
    details = {}
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.QuotaFailure):
            if packed.Is(kind.DESCRIPTOR):
                details[kind.DESCRIPTOR.name] = kind()
                packed.Unpack(details[kind.DESCRIPTOR.name])
    assert details["ErrorInfo"].metadata["code"] == "RateLimitExceeded"
    assert details["QuotaFailure"].violations[0].description.startswith(f"{per_second} requests per second")
    wait = details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
    assert 0 < wait <= 1 / per_second, wait
    assert int(headers["grpc-retry-pushback-ms"]) >= wait * 1000, headers
    time.sleep(int(headers["grpc-retry-pushback-ms"]) / 1000)
    assert call().code() == grpc.StatusCode.NOT_FOUND, "who waits as long as told passes"
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
