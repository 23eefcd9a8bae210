;; authorizer, ends: allow
;; body
(drop (memory.grow (i32.const 100)))
(memory.fill (i32.const 131072) (i32.const 7) (i32.const 6500000))
(call $allow)
