;; Almost two million empty roles.
;; role-mapper, ends: output
;; body
(drop (memory.grow (i32.const 250)))
(call $list (i32.const 131072) (i32.const 1900000))
