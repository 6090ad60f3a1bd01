# Auditor: reads the audit log and what the server tells of keys. No recording opens.

path "transit/decrypt/audit-*" {
  capabilities = ["update"]
}

path "transit/keys/audit-*" {
  capabilities = ["read"]
}

path "transit/keys/recordings-*" {
  capabilities = ["read"]
}

path "transit/keys" {
  capabilities = ["list"]
}

path "transit/decrypt/recordings-*" {
  capabilities = ["deny"]
}

path "transit/datakey/*" {
  capabilities = ["deny"]
}

path "transit/rewrap/*" {
  capabilities = ["deny"]
}
