;; A bulk instruction costs fuel for each byte, and so does the growth before it.
;; authorizer, ends: fuel
;; body
(drop (memory.grow (i32.const 200)))
(memory.fill (i32.const 131072) (i32.const 7) (i32.const 13000000))
(call $allow)
