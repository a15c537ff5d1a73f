;; Takes all the memory it can get, one page after another, and writes to each; then to the page it did not get.
;; ends in: (WASMCLOUD_ACTOR_MEMORY_BYTES)
(module
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32)
    (local $page i32)
    (loop $more
      (local.set $page (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $page) (i32.const -1))
        (then
          (i32.store (i32.mul (local.get $page) (i32.const 65536)) (i32.const 0xdeadbeef))
          (br $more))))
    (i32.store (i32.mul (memory.size) (i32.const 65536)) (i32.const 1))
    (i32.const 1)))
