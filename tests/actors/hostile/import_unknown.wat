;; Wants a host function that the ABI does not have.
;; refused with: imports wasmbus::__host_exit, which is not one of the nine functions of the host ABI
(module
  (import "wasmbus" "__host_exit" (func (param i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
