# Rewrapper: moves slots to the newest version of their key, inside the server. It sees no data key.

path "transit/rewrap/recordings-*" {
  capabilities = ["update"]
}

path "transit/keys/recordings-*" {
  capabilities = ["read"]
}

path "transit/decrypt/*" {
  capabilities = ["deny"]
}

path "transit/datakey/*" {
  capabilities = ["deny"]
}

path "transit/export/*" {
  capabilities = ["deny"]
}
