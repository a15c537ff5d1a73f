;; Wants 4 GiB from the start.
;; refused with: bytes of memory, the limit is
(module
  (memory (export "memory") 65536)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
