#!/usr/bin/env bash
# Looks for what is missing in a folder of exported certificates (*.sigstore.json with their *.evidence.ndjson), with jq and sha256sum
# alone. Usage: chain.sh FOLDER. Prints NAME accepted | NAME rejected REASON, one a line: a gap before a certificate, one that is there
# twice, a previousCertificate that is not the digest of the one before, a roll-up that counts other certificates than are there, or
# another list than lies beside it, evidence without its certificate. The last line, end REASON, says what no folder can show: whether
# certificates behind the last one were left out. Their receipts tell how large the log was; whoever runs it knows what it holds.
# Signatures are for openssl.sh.
set -euo pipefail
folder=$1 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shopt -s nullglob

for bundle in "$folder"/*.sigstore.json; do
    name=$(basename "$bundle" .sigstore.json)
    jq -rj .dsseEnvelope.payload "$bundle" | base64 -d >"$work/$name"
    type=$(jq -rj .dsseEnvelope.payloadType "$bundle")
    digest=$({ printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(stat -c %s "$work/$name")"; cat "$work/$name"; } | sha256sum)
    jq -r --arg name "$name" --arg digest "${digest%% *}" '[.predicate.sequence, $name, $digest,
        (.predicate.previousCertificate.sha256 // "none"), (.predicateType | contains("/roll-up/"))] | @tsv' "$work/$name"
done | sort -n >"$work/.all"

# What is wrong with a roll-up: its list, its counts, and the digests in the list of certificates that are there.
roll_up() {
    local list="$folder/$1.evidence.ndjson" said listed number digest here
    [ -f "$list" ] || { echo "its list is not there"; return; }
    said=$(sha256sum "$list")
    [ "${said%% *}" = "$(jq -rj '.subject[0].digest.sha256' "$work/$1")" ] || { echo "its list is another one"; return; }
    listed=$(jq -s '[.[] | select(.certificate)] | length' "$list")
    [ "$listed" = "$(jq .predicate.certificateTotals.issued "$work/$1")" ] || { echo "it counts other certificates"; return; }
    while read -r number digest; do
        here=$(awk -F'\t' -v number="$number" '$1 == number { print $3 }' "$work/.all")
        [ -n "$here" ] || { echo "certificate $number, which it counts, is not there"; return; }
        [ "$here" = "$digest" ] || { echo "certificate $number, which it counts, is another one"; return; }
    done < <(jq -r 'select(.certificate) | "\(.sequence) \(.digest)"' "$list")
}

for list in "$folder"/*.evidence.ndjson; do
    name=$(basename "$list" .evidence.ndjson)
    [ -f "$folder/$name.sigstore.json" ] || echo "$name rejected only what lies beside the certificate is there"
done

last=0 before=none counted=0
while IFS=$'\t' read -r sequence name digest previous is_roll_up; do
    wrong=''
    if [ "$sequence" -le "$last" ]; then
        wrong="no. $sequence is there twice"
    elif [ "$sequence" -eq $((last + 2)) ]; then
        wrong="no. $((last + 1)) is missing"
    elif [ "$sequence" -gt $((last + 2)) ]; then
        wrong="no. $((last + 1)) to $((sequence - 1)) are missing"
    elif [ "$previous" != "$before" ]; then
        wrong="the certificate before it is another one"
    elif [ "$is_roll_up" = true ]; then
        wrong=$(roll_up "$name")
    fi
    if [ -n "$wrong" ]; then echo "$name rejected $wrong"; else echo "$name accepted"; fi
    if [ "$is_roll_up" = true ]; then counted=$sequence; fi
    last=$sequence before=$digest
done <"$work/.all"

# Later roll-ups would count these; without one nothing in the folder does.
end="no. $last is the last one there, and nothing here shows whether later ones are missing"
if [ "$last" -gt "$counted" ]; then end="$end; no roll-up counts those behind no. $counted"; fi
entries=$(for bundle in "$folder"/*.sigstore.json; do
    jq -r '.verificationMaterial.tlogEntries[]?.inclusionProof.treeSize // 0' "$bundle"
done | sort -n | tail -n 1)
if [ "${entries:-0}" -gt "$(wc -l <"$work/.all")" ]; then
    end="$end; the log held $entries entries when these were filed: the others are somebody else's, or missing here"
fi
echo "end $end"
