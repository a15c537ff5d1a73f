;; Fails with a text from beyond its memory.
;; ends in: __guest_error: the error text at 4294967295
(module
  (import "wasmbus" "__guest_error" (func $fail (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $fail (i32.const -1) (i32.const -1))
    (i32.const 1)))
