# Uploader and recovery after a crash: ciphertext only, no key service at all.

path "transit/*" {
  capabilities = ["deny"]
}
