;; Claims a table of 4 billion elements.
;; refused with: (WASMCLOUD_ACTOR_TABLE_ELEMENTS)
(module
  (memory (export "memory") 1)
  (table 0xffffffff funcref)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
