;; Its start function, which runs while the instance is being made, never returns.
;; ends in: the start section of actor start_loop did not end within one slice
(module
  (memory (export "memory") 1)
  (func $start (loop $again (br $again)))
  (start $start)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
