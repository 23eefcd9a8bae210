;; authorizer, ends: fuel deadline
;; body
(drop (memory.grow (i32.const 250)))
(loop $again (memory.fill (i32.const 65536) (i32.const 7) (i32.const 16000000)) (br $again)) (unreachable)
