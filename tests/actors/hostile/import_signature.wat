;; Wants a host function under a signature it does not have.
;; refused with: imported function (wasmbus,__host_call) type mismatch
(module
  (import "wasmbus" "__host_call" (func (param i64) (result i64)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
