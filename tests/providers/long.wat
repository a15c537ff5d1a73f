;; An actor for bodies that do not fit a message.
;;
;; `HttpServer.HandleRequest`: answers the request's body, which must be longer than 65535 bytes, and come last in the
;; request, after the members that the providers here write (46 bytes before it).
;; Anything else: calls the linked provider with the same operation and a body of 1 200 000 bytes, expects the same bytes
;; back, and answers `ok`.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $respond (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $fail (param i32 i32)))
  (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_response" (func $answer (param i32)))
  (import "wasmbus" "__host_response_len" (func $answer_length (result i32)))
  (import "wasmbus" "__host_error" (func $refusal (param i32)))
  (import "wasmbus" "__host_error_len" (func $refusal_length (result i32)))
  (memory (export "memory") 64)
  ;; What stands before the body in an HTTP response: status 200, no headers.
  (data (i32.const 0) "\83\aastatusCode\cc\c8\a6header\80\a4body")
  (data (i32.const 64) "default")
  (data (i32.const 80) "wasmcloud:keyvalue")
  (data (i32.const 112) "ok")
  (data (i32.const 128) "other bytes came back")
  ;; The operation is at 1024, the payload and what is sent at 1 MiB, what comes back at 2.5 MiB.
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (local $at i32)
    (call $request (i32.const 1024) (i32.const 1048576))
    ;; "Http"
    (if (i32.eq (i32.load (i32.const 1024)) (i32.const 0x70747448))
      (then
        ;; The 27 bytes of the beginning go right before the body: 46 - 27 = 19.
        (loop $copy
          (i32.store8
            (i32.add (i32.const 1048595) (local.get $at))
            (i32.load8_u (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $copy (i32.lt_u (local.get $at) (i32.const 27))))
        (call $respond (i32.const 1048595) (i32.sub (local.get $payload) (i32.const 19)))
        (return (i32.const 1))))
    (loop $fill
      (i32.store
        (i32.add (i32.const 1048576) (local.get $at))
        (i32.mul (local.get $at) (i32.const 2654435761)))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $fill (i32.lt_u (local.get $at) (i32.const 1200000))))
    ;; 1 is success, anything else a refusal (protocol/actor-abi.md).
    (if (i32.ne (i32.const 1)
          (call $call
            (i32.const 64) (i32.const 7) (i32.const 80) (i32.const 18)
            (i32.const 1024) (local.get $operation) (i32.const 1048576) (i32.const 1200000)))
      (then
        ;; In this order: an error that was read is gone.
        (local.set $at (call $refusal_length))
        (call $refusal (i32.const 2621440))
        (call $fail (i32.const 2621440) (local.get $at))
        (return (i32.const 0))))
    (if (i32.eq (call $answer_length) (i32.const 1200000))
      (then
        (call $answer (i32.const 2621440))
        (local.set $at (i32.const 0))
        (loop $compare
          (if (i32.eq
                (i32.load (i32.add (i32.const 2621440) (local.get $at)))
                (i32.mul (local.get $at) (i32.const 2654435761)))
            (then
              (local.set $at (i32.add (local.get $at) (i32.const 4)))
              (br_if $compare (i32.lt_u (local.get $at) (i32.const 1200000)))
              (call $respond (i32.const 112) (i32.const 2))
              (return (i32.const 1)))))))
    (call $fail (i32.const 128) (i32.const 21))
    (i32.const 0)))
