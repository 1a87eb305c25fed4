#!/usr/bin/env bash
# Verifies certificates with jq and openssl alone. Usage: openssl.sh FOLDER, which holds signer.pem and *.sigstore.json.
# Prints NAME accepted | NAME rejected, one a line.
set -euo pipefail
folder=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for bundle in "$folder"/*.sigstore.json; do
    name=$(basename "$bundle" .sigstore.json)
    jq -rj .dsseEnvelope.payload "$bundle" | base64 -d >"$work/payload"
    jq -rj '.dsseEnvelope.signatures[0].sig' "$bundle" | base64 -d >"$work/signature"
    type=$(jq -rj .dsseEnvelope.payloadType "$bundle")
    printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(stat -c %s "$work/payload")" >"$work/signed"
    cat "$work/payload" >>"$work/signed"
    if openssl dgst -sha256 -verify "$folder/signer.pem" -signature "$work/signature" "$work/signed" >/dev/null 2>&1; then
        echo "$name accepted"
    else
        echo "$name rejected"
    fi
done
