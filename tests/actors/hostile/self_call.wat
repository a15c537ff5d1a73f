;; Calls itself through the host, for ever.
;; ends in: depth
(module
  (import "wasmbus" "__host_call" (func $host_call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_error_len" (func $error_length (result i32)))
  (import "wasmbus" "__host_error" (func $error (param i32)))
  (import "wasmbus" "__guest_error" (func $fail (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "hostile/self_call")
  (data (i32.const 64) "Hostile.Run")
  (func (export "__guest_call") (param i32 i32) (result i32)
    (local $length i32)
    (if (i32.eq (i32.const 1) (call $host_call
          (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 17) (i32.const 64) (i32.const 11)
          (i32.const 0) (i32.const 0)))
      (then (return (i32.const 1))))
    (local.set $length (call $error_length))
    (call $error (i32.const 1024))
    (call $fail (i32.const 1024) (local.get $length))
    (i32.const 0)))
