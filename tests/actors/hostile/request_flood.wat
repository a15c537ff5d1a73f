;; Calls out with all its memory as the payload, again and again.
;; ends in: __host_call: the payload has
(module
  (import "wasmbus" "__host_call" (func $host_call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_error_len" (func $error_length (result i32)))
  (import "wasmbus" "__host_error" (func $error (param i32)))
  (import "wasmbus" "__guest_error" (func $fail (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "wasmcloud:builtin:logging")
  (data (i32.const 64) "Logging.WriteLog")
  (func (export "__guest_call") (param i32 i32) (result i32)
    (local $length i32)
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (drop (call $host_call
      (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 25) (i32.const 64) (i32.const 16)
      (i32.const 0) (i32.mul (memory.size) (i32.const 65536))))
    (local.set $length (call $error_length))
    (call $error (i32.const 1024))
    (call $fail (i32.const 1024) (local.get $length))
    (i32.const 0)))
