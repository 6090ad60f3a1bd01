# Player: opens recordings. For one tenant, write its key's name in the place of recordings-*.

path "transit/decrypt/recordings-*" {
  capabilities = ["update"]
}

path "transit/keys/recordings-*" {
  capabilities = ["read"]
}

# Who listens makes no recordings and changes no keys.
path "transit/datakey/*" {
  capabilities = ["deny"]
}

path "transit/encrypt/*" {
  capabilities = ["deny"]
}

path "transit/rewrap/*" {
  capabilities = ["deny"]
}
