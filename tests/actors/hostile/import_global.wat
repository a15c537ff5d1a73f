;; Wants a global of the host.
;; refused with: imports wasmbus::secret
(module
  (import "wasmbus" "secret" (global i32))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
