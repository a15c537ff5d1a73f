;; Logs 60 000 bytes, 10 000 times, then fails.
;; ends in: logged enough
(module
  (import "wasmbus" "__console_log" (func $log (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $fail (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "logged enough")
  (func (export "__guest_call") (param i32 i32) (result i32)
    (local $left i32)
    (memory.fill (i32.const 1024) (i32.const 0x6c) (i32.const 60000))
    (local.set $left (i32.const 10000))
    (loop $again
      (call $log (i32.const 1024) (i32.const 60000))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (call $fail (i32.const 0) (i32.const 13))
    (i32.const 0)))
