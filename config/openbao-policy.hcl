# What the agent needs of OpenBao or Vault, and no more. Put your mount for `transit` and your key for `wangchuan`.
#
#   bao secrets enable transit
#   bao write -f transit/keys/wangchuan type=aes256-gcm96
#   bao write -f transit/keys/wangchuan-signing type=ecdsa-p256        only with kind = "transit" under [signing]
#   bao policy write wangchuan openbao-policy.hcl
#   bao auth enable approle
#   bao write auth/approle/role/wangchuan token_policies=wangchuan token_ttl=1h token_max_ttl=24h
#   bao read auth/approle/role/wangchuan/role-id
#   bao write -f auth/approle/role/wangchuan/secret-id
#
# The key belongs to one installation: destroying an old root trims everything older in it. Run the service with few and short-lived
# snapshots, and with a short raft log (`trailing_logs`, `snapshot_threshold`, `snapshot_interval`): trimmed versions stay in
# that log until it is cut.

# What state the key is in; also the evidence after a destruction.
path "transit/keys/wangchuan" {
  capabilities = ["read"]
}

# A version for each generation of the root.
path "transit/keys/wangchuan/rotate" {
  capabilities = ["update"]
}

path "transit/encrypt/wangchuan" {
  capabilities = ["update"]
}

path "transit/decrypt/wangchuan" {
  capabilities = ["update"]
}

# Nothing but the two numbers that come before a trim: not exportable, allow_plaintext_backup, deletion_allowed.
path "transit/keys/wangchuan/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
  }
}

# Destroys old versions.
path "transit/keys/wangchuan/trim" {
  capabilities = ["update"]
}

# The key that signs certificates, where [signing] says that it is here: its public halves, a version for each key, signatures. Without
# [signing] leave these three out.
path "transit/keys/wangchuan-signing" {
  capabilities = ["read"]
}

path "transit/keys/wangchuan-signing/rotate" {
  capabilities = ["update"]
}

path "transit/sign/wangchuan-signing" {
  capabilities = ["update"]
}

# To tell a revoked token from a missing right, to renew it, and for `wangchuan doctor`.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "sys/capabilities-self" {
  capabilities = ["update"]
}
