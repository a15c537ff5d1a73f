;; Grows a table until it is refused, then calls what is not there.
;; ends in: it asked for a larger table, which is never granted
(module
  (type $call (func))
  (memory (export "memory") 1)
  (table $functions 1 funcref)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (loop $more
      (br_if $more (i32.ne (table.grow $functions (ref.null func) (i32.const 65536)) (i32.const -1))))
    (call_indirect (type $call) (table.size $functions))
    (i32.const 1)))
