;; Divides by a number that is zero only at run time.
;; ends in: divide by zero
(module
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (i32.div_u (local.get 0) (i32.load (i32.const 1024)))))
