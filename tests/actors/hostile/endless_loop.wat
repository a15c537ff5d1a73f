;; Never returns.
;; ends in: units of fuel (WASMCLOUD_ACTOR_FUEL)
(module
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (loop $again (br $again))
    (unreachable)))
