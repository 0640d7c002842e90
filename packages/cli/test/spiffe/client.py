# A service on py-spiffe. Only SPIFFE_ENDPOINT_SOCKET tells it where it is.
#   client.py AUDIENCE   prints what it gets as JSON lines, each X.509 context that comes, and twice a second what its
#                        X509Source holds
import datetime
import json
import sys
import time

from spiffe import JwtSource, WorkloadApiClient, X509Source


def tell(event, **more):
    print(json.dumps({"event": event, **more}, separators=(",", ":")), flush=True)


def hold(source):
    try:
        leaf = source.get_x509_context().default_svid.leaf
        expired = leaf.not_valid_after_utc < datetime.datetime.now(datetime.timezone.utc)
        tell("held", serial=format(leaf.serial_number, "x"), expired=expired)
    except Exception as error:
        tell("none", error=str(error))


def main(audience):
    with WorkloadApiClient() as client:
        tell("svid", id=str(client.fetch_x509_svid().spiffe_id))
        tell("bundles", x509=len(client.fetch_x509_bundles().bundles), jwt=len(client.fetch_jwt_bundles().bundles))
        svid = client.fetch_jwt_svid(audience={audience})
        valid = client.validate_jwt_svid(svid.token, audience)
        tell("jwt", id=str(svid.spiffe_id), valid=str(valid.spiffe_id))
        with JwtSource() as source:
            tell("jwt-source", id=str(source.fetch_svid(audience={audience}).spiffe_id))
        with X509Source() as source:
            tell("source", id=str(source.get_x509_context().default_svid.spiffe_id))

        def context(update):
            svid = update.default_svid
            tell("context", id=str(svid.spiffe_id), serial=format(svid.leaf.serial_number, "x"))

        client.stream_x509_contexts(context, lambda error: tell("error", error=str(error)))
        with X509Source() as source:
            while True:
                hold(source)
                time.sleep(0.5)


try:
    main(sys.argv[1])
except Exception as error:
    tell("failed", error=str(error))
    sys.exit(1)
