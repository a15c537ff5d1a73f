;; Fails with an error text of all its memory.
;; ends in: AAAAAAAAAAAAAAAA
(module
  (import "wasmbus" "__guest_error" (func $fail (param i32 i32)))
  (memory (export "memory") 32)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (memory.fill (i32.const 0) (i32.const 65) (i32.const 2097152))
    (call $fail (i32.const 0) (i32.const 2097152))
    (i32.const 0)))
