#!/usr/bin/env bash
# Verifies the time stamps of bundles with jq and openssl. Usage: stamps.sh FOLDER, which holds timestamp-roots.pem and *.sigstore.json.
# Prints NAME accepted | NAME rejected, one a line.
set -euo pipefail
folder=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for bundle in "$folder"/*.sigstore.json; do
    name=$(basename "$bundle" .sigstore.json)
    jq -rj '.dsseEnvelope.signatures[0].sig' "$bundle" | base64 -d >"$work/signature"
    jq -rj '.verificationMaterial.timestampVerificationData.rfc3161Timestamps[0].signedTimestamp' "$bundle" |
        base64 -d >"$work/reply"
    if openssl ts -verify -data "$work/signature" -in "$work/reply" -CAfile "$folder/timestamp-roots.pem" \
        >/dev/null 2>&1; then
        echo "$name accepted"
    else
        echo "$name rejected"
    fi
done
