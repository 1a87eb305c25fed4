# What the agent needs for keys of applications that it destroys ([[outside_key]] in the configuration), and no more. It can
# neither seal nor open anything with them. Keep them in a mount of their own; put its name for `fields`.
#
#   bao secrets enable -path=fields transit
#   bao policy write wangchuan-fields openbao-outside-policy.hcl
#   bao auth enable approle
#   bao write auth/approle/role/wangchuan-fields token_policies=wangchuan-fields token_ttl=1h token_max_ttl=24h
#
# Whoever has this policy can destroy every key of the mount: that is what it is for. To grant one key only, write its name for `+`.
# A deleted key leaves the live service; copies of its storage, together with its unseal keys, can bring it back. Applications
# should not have `create` on `fields/encrypt/+`: it makes a key of the same name anew when they seal with one that is gone.

# What a key is, and whether it is gone: the evidence.
path "fields/keys/+" {
  capabilities = ["read", "delete"]
}

# Nothing but the switch without which no key is deleted: not exportable, allow_plaintext_backup or any version.
path "fields/keys/+/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "deletion_allowed" = [true, false]
  }
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
