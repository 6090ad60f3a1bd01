# Key administrator: makes, rotates, withdraws and destroys keys, and uses none of them. None that can be taken out of
# the server, and none that was made elsewhere (an import is a ciphertext), so that nobody ever has one.

path "transit/keys/recordings-*" {
  capabilities = ["create", "update", "read", "delete"]
  denied_parameters = {
    "exportable"             = []
    "allow_plaintext_backup" = []
    "ciphertext"             = []
  }
}

path "transit/keys/audit-*" {
  capabilities = ["create", "update", "read", "delete"]
  denied_parameters = {
    "exportable"             = []
    "allow_plaintext_backup" = []
    "ciphertext"             = []
  }
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
