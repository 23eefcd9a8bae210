;; authorizer, ends: output
;; body
(drop (memory.grow (i32.const 100)))
(call $log (i32.const 1) (i32.const 65536) (i32.const 1000000))
(call $allow)
