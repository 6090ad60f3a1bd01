# Recorder: asks for data keys and can open none, not even its own.
# Keys of recordings are named recordings-TENANT, that of the audit log audit-NAME.

path "transit/datakey/plaintext/recordings-*" {
  capabilities = ["update"]
}

path "transit/datakey/plaintext/audit-*" {
  capabilities = ["update"]
}

# To see that a key binds a context and cannot be taken out of the server.
path "transit/keys/recordings-*" {
  capabilities = ["read"]
}

path "transit/keys/audit-*" {
  capabilities = ["read"]
}

# Denied too where a policy beside this one allows the same path or a wider one.
path "transit/decrypt/*" {
  capabilities = ["deny"]
}

path "transit/decrypt/recordings-*" {
  capabilities = ["deny"]
}

path "transit/decrypt/audit-*" {
  capabilities = ["deny"]
}

path "transit/rewrap/*" {
  capabilities = ["deny"]
}

path "transit/rewrap/recordings-*" {
  capabilities = ["deny"]
}

path "transit/export/*" {
  capabilities = ["deny"]
}
