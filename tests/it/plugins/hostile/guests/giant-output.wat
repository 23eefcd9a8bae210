;; authorizer, ends: output
;; body
(drop (memory.grow (i32.const 100)))
(call $deny (i32.const 65536) (i32.const 6000000))
