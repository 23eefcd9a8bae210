;; Each line is within its limit; together they exceed theirs.
;; authorizer, ends: output
;; body
(drop (memory.grow (i32.const 2)))
(loop $again (call $log (i32.const 1) (i32.const 65536) (i32.const 60000)) (br $again)) (unreachable)
