# Key administrator: makes, rotates, withdraws and destroys keys, and uses none of them.

path "transit/keys/recordings-*" {
  capabilities = ["create", "update", "read", "delete"]
}

path "transit/keys/audit-*" {
  capabilities = ["create", "update", "read", "delete"]
}

path "transit/keys" {
  capabilities = ["list"]
}

path "transit/decrypt/*" {
  capabilities = ["deny"]
}

path "transit/encrypt/*" {
  capabilities = ["deny"]
}

path "transit/datakey/*" {
  capabilities = ["deny"]
}

path "transit/rewrap/*" {
  capabilities = ["deny"]
}

path "transit/export/*" {
  capabilities = ["deny"]
}

path "transit/backup/*" {
  capabilities = ["deny"]
}
